#version 460
// Rows of a table by number. A number outside of it gives NaN, which nothing downstream hides.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer Y { Stored y[]; };
layout(set = 0, binding = 1) readonly buffer Ids { uint ids[]; };
layout(set = 0, binding = 2) readonly buffer Table { Stored table[]; };
layout(push_constant) uniform Push { EmbeddingParams p; };

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint position = i / p.width;
    const uint id = ids[position];  // a negative number is a large one
    y[i] = id < p.rows ? table[id * p.width + (i - position * p.width)]
                       : store(uintBitsToFloat(0x7fc00000));
}
