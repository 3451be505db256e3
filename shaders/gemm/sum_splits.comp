#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_shader_16bit_storage : require
// The sums of the parts of k, always in one order, become y; see tile_matrix.glsl.

#include "common/index.glsl"
#include "gemm/epilogue_matrix.glsl"

layout(std430, binding = 6) readonly restrict buffer Partial { vec4 partial[]; };

void main() {
    const uint vectors = vectors_of_row(), number = linear_invocation();
    if (number >= params.m * vectors) return;
    Sums s = Sums(vec4(0), vec4(0));
    for (uint split = 0; split < params.splits; ++split) {
        const uint at = 2 * (split * params.m * vectors + number);
        s = add(s, Sums(partial[at], partial[at + 1]));
    }
    write_y(number / vectors, number % vectors, s);
}
