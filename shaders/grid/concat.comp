#version 460
// Rows side by side.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer Y { Stored4 y[]; };
layout(set = 0, binding = 1) readonly buffer A { Stored4 a[]; };
layout(set = 0, binding = 2) readonly buffer B { Stored4 b[]; };
layout(set = 0, binding = 3) readonly buffer C { Stored4 c[]; };
layout(set = 0, binding = 4) readonly buffer D { Stored4 d[]; };
layout(push_constant) uniform Push { ConcatParams p; };

uint place(uint input_number, uint row, uint column) {
    const uint r = row % p.rows[input_number], together = p.together[input_number];
    const uint begin = input_number == 0 ? 0 : p.ends[input_number - 1];
    const uint width = p.ends[input_number] - begin;
    return r / together * p.pitch[input_number] + r % together * width + column - begin;
}

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint row = i / p.width, column = i - row * p.width;
    if (column < p.ends[0]) y[i] = a[place(0, row, column)];
    else if (column < p.ends[1]) y[i] = b[place(1, row, column)];
    else if (column < p.ends[2]) y[i] = c[place(2, row, column)];
    else y[i] = d[place(3, row, column)];
}
