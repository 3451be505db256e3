#version 460
// Σ weight · x over the tokens of a part, by head and feature, in their order.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer Sums { vec4 sums[]; };  // (parts, lines, d4)
layout(set = 0, binding = 1) readonly buffer X { Stored4 x[]; };
layout(set = 0, binding = 2) readonly buffer Weights { float weights[]; };  // (lines, tokens)
layout(push_constant) uniform Push { LinearParams p; };

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint feature = i % p.d4, row = i / p.d4, line = row % p.lines, part = row / p.lines;
    const uint batch = line / p.heads, head = line - batch * p.heads;
    const uint begin = part * p.chunk, end = min(begin + p.chunk, p.tokens);
    uint at = (batch * p.tokens + begin) * p.pitch + head * p.d4 + feature;
    vec4 sum = vec4(0);
    for (uint token = begin; token < end; ++token, at += p.pitch)
        sum += p.flag != 0 ? weights[line * p.tokens + token] * load4(x[at]) : load4(x[at]);
    sums[i] = sum;
}
