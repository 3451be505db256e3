#version 460
// scale · Σ of the parts, in their order.
#extension GL_GOOGLE_include_directive : require
#include "common/index.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer Y { vec4 y[]; };
layout(set = 0, binding = 1) readonly buffer Parts { vec4 parts[]; };
layout(push_constant) uniform Push { LinearParams p; };

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    vec4 sum = vec4(0);
    for (uint part = 0; part < p.chunk; ++part) sum += parts[part * p.count + i];
    y[i] = p.scale * sum;
}
