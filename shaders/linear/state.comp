#version 460
// Σ weight · k vᵀ over the tokens of a part: the state of a head of linear attention. An invocation
// owns 4 features × 4 values and adds in the order of the tokens; neighbours share loads.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer State { vec4 state[]; };  // (parts, lines, d, e4)
layout(set = 0, binding = 1) readonly buffer K { Stored4 k[]; };
layout(set = 0, binding = 2) readonly buffer V { Stored4 v[]; };
layout(set = 0, binding = 3) readonly buffer Weights { float weights[]; };  // (lines, tokens)
layout(push_constant) uniform Push { LinearParams p; };

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint column = i % p.e4, feature = i / p.e4 % p.d4, row = i / p.e4 / p.d4;
    const uint line = row % p.lines, part = row / p.lines;
    const uint batch = line / p.heads, head = line - batch * p.heads;
    const uint begin = part * p.chunk, end = min(begin + p.chunk, p.tokens);
    uint k_at = (batch * p.tokens + begin) * p.pitch + head * p.d4 + feature;
    uint v_at = (batch * p.tokens + begin) * p.value_pitch + head * p.e4 + column;
    vec4 a = vec4(0), b = vec4(0), c = vec4(0), d = vec4(0);
    for (uint token = begin; token < end; ++token) {
        vec4 key = load4(k[k_at]);
        const vec4 value = load4(v[v_at]);
        if (p.flag != 0) key *= weights[line * p.tokens + token];
        a = fma(key.xxxx, value, a);
        b = fma(key.yyyy, value, b);
        c = fma(key.zzzz, value, c);
        d = fma(key.wwww, value, d);
        k_at += p.pitch;
        v_at += p.value_pitch;
    }
    const uint at = (row * p.d4 + feature) * 4 * p.e4 + column;
    state[at] = a;
    state[at + p.e4] = b;
    state[at + 2 * p.e4] = c;
    state[at + 3 * p.e4] = d;
}
