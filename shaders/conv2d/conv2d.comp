#version 450
// NHWC convolution as an implicit gemm: rows are output pixels, k runs over taps and input channels.
// y = activation(x * w + bias + residual); see gemm/tile.glsl.

#include "common/types.glsl"
#include "common/activation.glsl"
#include "conv2d/conv2d_params.h"

layout(push_constant) uniform Push { Conv2dParams params; };

const bool PADDED = true;
#include "gemm/tile.glsl"

// A tap in the zero padding reads the nearest pixel and counts as absent.
uint locate(uint row, int dy, int dx, out bool valid) {
    const uint line = row / params.columns;  // of all images
    const uint image = line / params.rows;
    const int y = int((line - image * params.rows) * params.stride) + dy;
    const int x = int((row - line * params.columns) * params.stride) + dx;
    const int height = int(params.height), width = int(params.width);
    valid = y >= 0 && y < height && x >= 0 && x < width;
    return ((image * height + clamp(y, 0, height - 1)) * width + clamp(x, 0, width - 1)) * params.k;
}

vec4 finish(vec4 sum, uint row, uint g) {
    if (BIAS) sum += LOAD_COLUMNS(bias, bias4, 0, g);
    if (RESIDUAL) sum += LOAD_COLUMNS(residual, residual4, row * params.n, g);
    return activate(sum, ACTIVATION);
}

void main() {
    begin_tile();
    const int reach = int(params.kernel) / 2;
    uint w_row = 0;
    for (int dy = -reach; dy <= reach; ++dy) {
        for (int dx = -reach; dx <= reach; ++dx) {
            place_rows(dy, dx);
            accumulate(w_row);
            w_row += params.k;
        }
    }
    end_tile();
}
