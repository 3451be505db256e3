#version 460
// One result of attention from partial results over disjoint keys, four parts a dispatch:
// o = Σ exp(lse_i − lse) · o_i. What goes from one dispatch to the next is the largest lse, the sum
// of weights relative to it and the weighted sum of o, all fp32 and none rounded to a quotient or a
// logarithm: fp16 storage is rounded to once. An invocation owns four columns of a row.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "merge_params.h"

layout(constant_id = 1) const bool FIRST = true;  // nothing was summed before
layout(constant_id = 2) const bool LAST = true;   // writes the result, not the sums

layout(push_constant) uniform Push { MergeParams p; };
layout(set = 0, binding = 0) writeonly buffer O { Stored4 o[]; };
layout(set = 0, binding = 1) writeonly buffer Lse { float lse[]; };
layout(set = 0, binding = 2) buffer Sums { vec4 sums[]; };
layout(set = 0, binding = 3) readonly buffer Before { vec2 before[]; };  // (largest, weights) a row
// Another buffer than Before: all invocations of a row read that, one writes this.
layout(set = 0, binding = 4) writeonly buffer After { vec2 after[]; };
layout(set = 0, binding = 5) readonly buffer O0 { Stored4 o0[]; };
layout(set = 0, binding = 6) readonly buffer O1 { Stored4 o1[]; };
layout(set = 0, binding = 7) readonly buffer O2 { Stored4 o2[]; };
layout(set = 0, binding = 8) readonly buffer O3 { Stored4 o3[]; };
layout(set = 0, binding = 9) readonly buffer Lse0 { float lse0[]; };
layout(set = 0, binding = 10) readonly buffer Lse1 { float lse1[]; };
layout(set = 0, binding = 11) readonly buffer Lse2 { float lse2[]; };
layout(set = 0, binding = 12) readonly buffer Lse3 { float lse3[]; };

// Stands for −∞: finite, because −∞ − −∞ is NaN and compilers may assume there is none.
const float NOTHING = -3.402823466e38;
const uint MINUS_INFINITY = 0xff800000;

float part_lse(uint part, uint row) {
    float value = NOTHING;
    if (part == 0) value = lse0[row];
    if (part == 1) value = lse1[row];
    if (part == 2) value = lse2[row];
    if (part == 3) value = lse3[row];
    return floatBitsToUint(value) == MINUS_INFINITY ? NOTHING : value;
}

vec4 part_o(uint part, uint at) {
    if (part == 0) return load4(o0[at]);
    if (part == 1) return load4(o1[at]);
    if (part == 2) return load4(o2[at]);
    return load4(o3[at]);
}

void main() {
    const uint at = linear_invocation();
    if (at >= p.count) return;
    const uint row = at / p.d4;

    float own[4];
    float largest = FIRST ? NOTHING : before[row].x;
    for (uint i = 0; i < p.parts; ++i) {
        own[i] = part_lse(i, row);
        largest = max(largest, own[i]);
    }
    vec4 sum = vec4(0);
    float weights = 0;
    if (!FIRST && before[row].y > 0) {
        const float weight = exp(before[row].x - largest);
        weights = before[row].y * weight;
        sum = sums[at] * weight;
    }
    for (uint i = 0; i < p.parts; ++i) {
        if (own[i] == NOTHING) continue;  // whatever its o is
        const float weight = exp(own[i] - largest);
        weights += weight;
        sum += weight * part_o(i, at);
    }

    const bool first_of_row = at == row * p.d4;
    if (LAST) {
        o[at] = store4(weights > 0 ? sum / weights : vec4(0));
        if (first_of_row)
            lse[row] = weights > 0 ? largest + log(weights) : uintBitsToFloat(MINUS_INFINITY);
    } else {
        sums[at] = sum;
        if (first_of_row) after[row] = vec2(largest, weights);
    }
}
