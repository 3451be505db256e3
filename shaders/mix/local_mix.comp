#version 460
// Values of a token's window in a weighted sum, the weights given for every token, head and tap. An
// invocation owns four channels of a token.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "params.h"
#include "window.glsl"

layout(set = 0, binding = 0) writeonly buffer Y { Stored4 y[]; };
layout(set = 0, binding = 1) readonly buffer V { Stored4 v[]; };
layout(set = 0, binding = 2) readonly buffer Weights { Stored weights[]; };
layout(push_constant) uniform Push { MixParams p; };

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint channel = i % p.c4, head = i / p.c4 % p.heads, token = i / p.c4 / p.heads;
    const uint column = token % p.columns, row = token / p.columns % p.rows;
    const uint picture = token - row * p.columns - column;
    const uint first = picture + window_start(row, p.kernel, p.rows) * p.columns +
                       window_start(column, p.kernel, p.columns);
    uint tap = (token * p.heads + head) * p.kernel * p.kernel;
    vec4 sum = vec4(0);
    for (uint dy = 0; dy < p.kernel; ++dy) {
        uint at = (first + dy * p.columns) * p.pitch + head * p.c4 + channel;
        for (uint dx = 0; dx < p.kernel; ++dx, ++tap, at += p.pitch)
            sum = fma(vec4(load(weights[tap])), load4(v[at]), sum);
    }
    y[i] = store4(sum);
}
