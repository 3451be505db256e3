#version 460
// exp(lse of a range − lse of all): 0 where the range holds no key, and where nothing does.
#extension GL_GOOGLE_include_directive : require
#include "common/index.glsl"
#include "merge_params.h"

layout(push_constant) uniform Push { RangeMassParams p; };
layout(set = 0, binding = 0) writeonly buffer Mass { float mass[]; };
layout(set = 0, binding = 1) readonly buffer Range { float lse_range[]; };
layout(set = 0, binding = 2) readonly buffer All { float lse_all[]; };

const uint MINUS_INFINITY = 0xff800000;

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const float range = lse_range[i];
    // Two roundings may make the range a little heavier than all.
    mass[i] = floatBitsToUint(range) == MINUS_INFINITY ? 0.0 : min(exp(range - lse_all[i]), 1.0);
}
