#version 460
#extension GL_GOOGLE_include_directive : require
#include "gemm/matrix_extensions.glsl"
// y = residual + gate * activation(x w + bias) in fp16; see tile_matrix.glsl.

#include "gemm/tile_matrix.glsl"

uint x_base[X_LOADS];
uint x_at;  // vector along k

void locate_rows() {
    UNROLLED for (uint i = 0; i < X_LOADS; ++i)
        x_base[i] = min(first_row + x_row(i), params.m - 1) * (params.k / 8);
}

void start_walk() {
    x_at = walk * X_VECTORS + x_vector();
}

void step_walk(uint slabs) {
    x_at += slabs * X_VECTORS;
}

uvec4 load_x(uint i) {
    return x_data[x_base[i] + (RAGGED != 0 ? min(x_at, params.k / 8 - 1) : x_at)];
}
