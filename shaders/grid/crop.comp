#version 460
// A window of a grid of tokens; what lies outside of it is 0.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer Y { Stored4 y[]; };
layout(set = 0, binding = 1) readonly buffer X { Stored4 x[]; };
layout(push_constant) uniform Push { GridParams p; };

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint channel = i % p.c4, token = i / p.c4;
    const uint batch = token / p.columns / p.rows;
    // Positions above and left of x wrap around to the largest numbers.
    const uint row = token / p.columns % p.rows + uint(p.top);
    const uint column = token % p.columns + uint(p.left);
    vec4 value = vec4(0);
    if (row < p.x_rows && column < p.x_columns)
        value = load4(x[((batch * p.x_rows + row) * p.x_columns + column) * p.pitch + channel]);
    y[i] = store4(value);
}
