#version 460
#extension GL_GOOGLE_include_directive : require
#include "gemm/matrix_extensions.glsl"
// y = residual + gate * activation(x w + bias) in fp16; see tile_matrix.glsl.

#include "gemm/tile_matrix.glsl"

uint x_base[X_LOADS];

void locate_rows() {
    UNROLLED for (uint i = 0; i < X_LOADS; ++i)
        x_base[i] = min(first_row + x_row(i), params.m - 1) * (params.k / 8);
}

uvec4 load_x(uint i, uint vector) {
    if (vector >= params.k / 8) return uvec4(0);
    return x_data[x_base[i] + vector];
}
