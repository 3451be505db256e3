#version 460
// Means of a grid's cells: cell i of n spans ⌊i · extent / n⌋ to ⌈(i + 1) · extent / n⌉.
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
    const uint channel = i % p.c4, cell = i / p.c4;
    const uint column = cell % p.columns, row = cell / p.columns % p.rows;
    const uint batch = cell / p.columns / p.rows;
    const uint top = row * p.x_rows / p.rows;
    const uint bottom = ((row + 1) * p.x_rows + p.rows - 1) / p.rows;
    const uint left = column * p.x_columns / p.columns;
    const uint right = ((column + 1) * p.x_columns + p.columns - 1) / p.columns;
    vec4 sum = vec4(0);
    for (uint r = top; r < bottom; ++r)
        for (uint c = left; c < right; ++c)
            sum += load4(x[((batch * p.x_rows + r) * p.x_columns + c) * p.pitch + channel]);
    y[i] = store4(sum / float((bottom - top) * (right - left)));
}
