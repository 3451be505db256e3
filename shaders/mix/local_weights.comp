#version 460
// Softmax over the taps of a token's window, of logits plus a bias by where the tap lies from the
// token. An invocation has a token and a head.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "params.h"
#include "window.glsl"

layout(set = 0, binding = 0) writeonly buffer Y { Stored y[]; };  // (tokens, heads, taps)
layout(set = 0, binding = 1) readonly buffer Logits { Stored logits[]; };
layout(set = 0, binding = 2) readonly buffer Relative { float relative[]; };
layout(set = 0, binding = 3) readonly buffer Bias { float biases[]; };  // (taps)
layout(push_constant) uniform Push { MixParams p; };

uint bias_row, bias_column;

float logit(uint at, uint bias, uint tap) {
    const uint side = 2 * p.kernel - 1, dy = tap / p.kernel;
    return load(logits[at + tap]) + biases[tap] +
           relative[bias + (bias_row + dy) * side + bias_column + tap - dy * p.kernel];
}

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint head = i % p.heads, token = i / p.heads;
    const uint column = token % p.columns, row = token / p.columns % p.rows;
    const uint taps = p.kernel * p.kernel, side = 2 * p.kernel - 1;
    bias_row = window_start(row, p.kernel, p.rows) + p.kernel - 1 - row;
    bias_column = window_start(column, p.kernel, p.columns) + p.kernel - 1 - column;
    const uint at = token * p.pitch + head * p.row_pitch, bias = head * side * side;
    float most = logit(at, bias, 0);
    for (uint tap = 1; tap < taps; ++tap) most = max(most, logit(at, bias, tap));
    float sum = 0;
    for (uint tap = 0; tap < taps; ++tap) sum += exp(logit(at, bias, tap) - most);
    const float inverse = 1.0 / sum;
    for (uint tap = 0; tap < taps; ++tap)
        y[i * taps + tap] = store(exp(logit(at, bias, tap) - most) * inverse);
}
