#version 460
// x · vector of the head, for every token and head: an invocation each.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer Y { float y[]; };  // (lines, tokens)
layout(set = 0, binding = 1) readonly buffer X { Stored4 x[]; };
layout(set = 0, binding = 2) readonly buffer Vectors { vec4 vectors[]; };  // (lines, d4)
layout(push_constant) uniform Push { LinearParams p; };

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint line = i / p.tokens, token = i - line * p.tokens;
    const uint batch = line / p.heads, head = line - batch * p.heads;
    const uint at = (batch * p.tokens + token) * p.pitch + head * p.d4;
    vec4 sum = vec4(0);
    for (uint c = 0; c < p.d4; ++c) sum = fma(load4(x[at + c]), vectors[line * p.d4 + c], sum);
    const float dot_product = p.scale * dot(sum, vec4(1));
    float result = dot_product;
    if (p.finish == LINEAR_RECIPROCAL) result = 1.0 / (dot_product + p.eps);
    if (p.finish == LINEAR_SIGMOID) result = 1.0 / (1.0 + exp(-dot_product));
    if (p.finish == LINEAR_CLAMPED) result = clamp(dot_product, -1.0, 1.0);
    y[i] = result;
}
