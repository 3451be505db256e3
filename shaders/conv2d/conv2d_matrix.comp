#version 460
#extension GL_GOOGLE_include_directive : require
#include "gemm/matrix_extensions.glsl"
// NHWC convolution in fp16 as an implicit gemm: rows are output pixels, k runs over taps and input
// channels; input patches are gathered on their way to shared memory. y = activation(x * w + bias +
// residual); see gemm/tile_matrix.glsl.

#include "gemm/tile_matrix.glsl"

ivec2 pixel_of[X_LOADS];  // each row's place in the input, under the first tap
int x_base[X_LOADS];      // where that place's channels lie, before x where it is in the padding

void locate_rows() {
    const int reach = int(params.kernel) / 2;
    UNROLLED for (uint i = 0; i < X_LOADS; ++i) {
        const uint row = min(first_row + x_row(i), params.m - 1);
        const uint line = row / params.columns;  // of all images
        const uint image = line / params.rows;
        pixel_of[i] = ivec2(row - line * params.columns, line - image * params.rows) *
                          int(params.stride) - reach;
        x_base[i] = ((int(image * params.height) + pixel_of[i].y) * int(params.width) +
                     pixel_of[i].x) * int(params.channels / 8);
    }
}

uvec4 load_x(uint i, uint vector) {
    const uint vectors = params.channels / 8, tap = vector / vectors;
    const ivec2 offset = ivec2(tap % 3, tap / 3);  // kernels are 1 or 3 wide
    const uvec2 at = uvec2(pixel_of[i] + offset);
    if (vector >= params.k / 8 || at.x >= params.width || at.y >= params.height) return uvec4(0);
    return x_data[x_base[i] + (offset.y * int(params.width) + offset.x) * int(vectors) +
                  int(vector - tap * vectors)];
}
