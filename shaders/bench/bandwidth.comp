#version 460
// Reads one big buffer and writes another, 16 bytes an invocation: what memory gives.
#extension GL_GOOGLE_include_directive : require
#include "common/index.glsl"

layout(set = 0, binding = 0) writeonly buffer Y { uvec4 y[]; };
layout(set = 0, binding = 1) readonly buffer X { uvec4 x[]; };
layout(push_constant) uniform Push { uint count; };

void main() {
    const uint i = linear_invocation();
    if (i < count) y[i] = x[i] + 1;
}
