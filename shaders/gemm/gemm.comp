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

uint locate(uint row, int dy, int dx, out bool valid) {
    valid = true;
    return row * params.k;
}

vec4 finish(vec4 sum, uint row, uint g) {
    if (BIAS) sum += LOAD_COLUMNS(bias, bias4, 0, g);
    sum = activate(sum, ACTIVATION);
    if (GATE) sum *= LOAD_COLUMNS(gate, gate4, row / params.gate_rows * params.n, g);
    if (RESIDUAL) sum += LOAD_COLUMNS(residual, residual4, row * params.n, g);
    return sum;
}

void main() {
    begin_tile();
    place_rows(0, 0);
    accumulate(0);
    end_tile();
}
