#version 450
// y = residual + gate * activation(x w + bias); see tile.glsl.

#include "common/types.glsl"
#include "common/activation.glsl"
#include "gemm/gemm_params.h"

layout(push_constant) uniform Push { GemmParams params; };

const bool PADDED = false;
#include "gemm/tile.glsl"

layout(std430, binding = 5) readonly restrict buffer Gate { Stored gate[]; };
layout(std430, binding = 5) readonly restrict buffer Gate4 { Stored4 gate4[]; };

vec4 finish(vec4 sum, uint row, uint g) {
    sum = activate(sum, ACTIVATION);
    if (GATE) sum *= LOAD_COLUMNS(gate, gate4, row / params.gate_rows * params.n, g);
    if (RESIDUAL) sum += LOAD_COLUMNS(residual, residual4, row * params.n, g);
    return sum;
}

void main() {
    begin_tile();
    [[unroll]] for (uint p = 0; p < PARTS; ++p) x_base[p] = row_of(row_of_part(p)) * params.k;
    accumulate(0);
    end_tile();
}
