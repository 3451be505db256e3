#version 460
// q times the state of its head, and what makes it attention. An invocation owns 4 tokens × 4 values.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer O { Stored4 o[]; };  // (batch, tokens, heads, e4)
layout(set = 0, binding = 1) readonly buffer Q { Stored4 q[]; };
layout(set = 0, binding = 2) readonly buffer State { vec4 state[]; };      // (lines, d, e4)
layout(set = 0, binding = 3) readonly buffer Factors { float factors[]; };  // (lines, tokens)
layout(set = 0, binding = 4) readonly buffer Means { vec4 means[]; };       // (lines, e4)
layout(set = 0, binding = 5) readonly buffer Gate { Stored4 gate[]; };      // as o
layout(push_constant) uniform Push { LinearParams p; };

const uint TOKENS = 4;

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint groups = (p.tokens + TOKENS - 1) / TOKENS;
    const uint column = i % p.e4, group = i / p.e4 % groups, line = i / p.e4 / groups;
    const uint batch = line / p.heads, head = line - batch * p.heads;
    uint at[TOKENS];
    vec4 sums[TOKENS];
    for (uint t = 0; t < TOKENS; ++t) {
        const uint token = min(group * TOKENS + t, p.tokens - 1);
        at[t] = (batch * p.tokens + token) * p.pitch + head * p.d4;
        sums[t] = vec4(0);
    }
    uint s = line * p.d4 * 4 * p.e4 + column;
    for (uint c = 0; c < p.d4; ++c, s += 4 * p.e4) {
        const vec4 x = state[s], y = state[s + p.e4];
        const vec4 z = state[s + 2 * p.e4], w = state[s + 3 * p.e4];
        for (uint t = 0; t < TOKENS; ++t) {
            const vec4 feature = load4(q[at[t] + c]);
            vec4 sum = fma(feature.xxxx, x, sums[t]);
            sum = fma(feature.yyyy, y, sum);
            sum = fma(feature.zzzz, z, sum);
            sums[t] = fma(feature.wwww, w, sum);
        }
    }
    for (uint t = 0; t < TOKENS; ++t) {
        const uint token = group * TOKENS + t;
        if (token >= p.tokens) return;
        vec4 result = sums[t];
        float factor = 1;
        if (p.finish != LINEAR_PLAIN) factor = factors[line * p.tokens + token];
        if (p.finish == LINEAR_MULTIPLIED) result *= factor;
        if (p.finish == LINEAR_MAGNITUDE)
            result = (1.0 + 1.0 / (factor + p.eps)) * result - factor * means[line * p.e4 + column];
        const uint to = ((batch * p.tokens + token) * p.heads + head) * p.e4 + column;
        if (p.flag != 0) result *= load4(gate[to]);
        o[to] = store4(result);
    }
}
