#version 450
// NHWC convolution as an implicit gemm: rows are output pixels, k runs over taps and input channels.
// y = activation(x * w + bias + residual); see gemm/tile.glsl.

#include "common/types.glsl"
#include "common/activation.glsl"
#include "conv2d/conv2d_params.h"

layout(push_constant) uniform Push { Conv2dParams params; };

const bool PADDED = true;
#include "gemm/tile.glsl"

uint image_of[PARTS];  // each row's place in the input, under the middle tap
ivec2 pixel_of[PARTS];

void place_rows() {
    [[unroll]] for (uint p = 0; p < PARTS; ++p) {
        const uint row = row_of(row_of_part(p));
        const uint line = row / params.columns;  // of all images
        image_of[p] = line / params.rows;
        pixel_of[p] = ivec2((row - line * params.columns) * params.stride,
                            (line - image_of[p] * params.rows) * params.stride);
    }
}

// A tap in the zero padding reads the nearest pixel and counts as absent.
void move_rows(ivec2 tap) {
    const ivec2 size = ivec2(params.width, params.height);
    [[unroll]] for (uint p = 0; p < PARTS; ++p) {
        const ivec2 at = pixel_of[p] + tap;
        const ivec2 near = clamp(at, ivec2(0), size - 1);
        x_valid[p] = at == near;
        x_base[p] = ((image_of[p] * size.y + near.y) * size.x + near.x) * params.k;
    }
}

vec4 finish(vec4 sum, uint row, uint g) {
    if (RESIDUAL) sum += LOAD_COLUMNS(residual, residual4, row * params.n, g);
    return activate(sum, ACTIVATION);
}

void main() {
    begin_tile();
    place_rows();
    const int reach = int(params.kernel) / 2;
    uint w_row = 0;
    for (int dy = -reach; dy <= reach; ++dy) {
        for (int dx = -reach; dx <= reach; ++dx) {
            move_rows(ivec2(dx, dy));
            accumulate(w_row);
            w_row += params.k;
        }
    }
    end_tile();
}
