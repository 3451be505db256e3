#version 460
// activation(x * w + bias) + residual, each channel by itself, zeros beyond the border. An
// invocation owns four channels of a pixel.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/activation.glsl"
#include "common/index.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer Y { Stored4 y[]; };
layout(set = 0, binding = 1) readonly buffer X { Stored4 x[]; };
layout(set = 0, binding = 2) readonly buffer W { Stored4 w[]; };  // (kernel, kernel, c4)
layout(set = 0, binding = 3) readonly buffer Bias { Stored4 bias[]; };
layout(set = 0, binding = 4) readonly buffer Residual { Stored4 residual[]; };
layout(push_constant) uniform Push { MixParams p; };

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint channel = i % p.c4, pixel = i / p.c4;
    const uint column = pixel % p.columns, row = pixel / p.columns % p.rows;
    const uint before = p.kernel / 2;
    // Taps that lie inside; unsigned differences that would be negative are cut to 0 first.
    const uint first_row = max(row, before) - row, end_row = min(p.kernel, p.rows + before - row);
    const uint first = max(column, before) - column;
    const uint end = min(p.kernel, p.columns + before - column);
    vec4 sum = vec4(0);
    if (p.bias != 0) sum = load4(bias[channel]);
    for (uint dy = first_row; dy < end_row; ++dy) {
        const uint line = (pixel + dy * p.columns - before * p.columns - before) * p.pitch + channel;
        for (uint dx = first; dx < end; ++dx)
            sum = fma(load4(x[line + dx * p.pitch]), load4(w[(dy * p.kernel + dx) * p.c4 + channel]),
                      sum);
    }
    sum = activate(sum, p.activation);
    if (p.residual != 0) sum += load4(residual[i]);
    y[i] = store4(sum);
}
