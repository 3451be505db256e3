// What gemm and conv2d make of 8 adjacent sums, as data of the push constants: branches that all
// lanes take alike cost nothing beside the walk along k, and a pipeline for each combination would
// cost start-up.

#include "common/activation.glsl"
#include "gemm/matrix_params.h"

layout(push_constant) uniform Push { MatrixParams params; };

layout(std430, binding = 2) writeonly restrict buffer Y { uvec4 y_data[]; };
layout(std430, binding = 3) readonly restrict buffer Bias { uvec4 bias_data[]; };
layout(std430, binding = 4) readonly restrict buffer Residual { uvec4 residual_data[]; };
layout(std430, binding = 5) readonly restrict buffer Gate { uvec4 gate_data[]; };

struct Sums {
    vec4 low, high;
};

Sums unpack(uvec4 v) {
    return Sums(vec4(unpackHalf2x16(v.x), unpackHalf2x16(v.y)),
                vec4(unpackHalf2x16(v.z), unpackHalf2x16(v.w)));
}

Sums add(Sums a, Sums b) { return Sums(a.low + b.low, a.high + b.high); }

bool has(uint flag) { return (params.flags & flag) != 0; }

// Writes columns 8 · vector … + 7 of a row of y.
void write_y(uint row, uint vector, Sums s) {
    const uint vectors = params.n / 8, at = row * vectors + vector;
    if (has(MATRIX_BIAS)) s = add(s, unpack(bias_data[vector]));
    if (has(MATRIX_RESIDUAL) && has(MATRIX_RESIDUAL_INSIDE)) s = add(s, unpack(residual_data[at]));
    s = Sums(activate(s.low, params.activation), activate(s.high, params.activation));
    if (has(MATRIX_GATE)) {
        const Sums g = unpack(gate_data[row / params.gate_rows * vectors + vector]);
        s = Sums(s.low * g.low, s.high * g.high);
    }
    if (has(MATRIX_RESIDUAL) && !has(MATRIX_RESIDUAL_INSIDE)) s = add(s, unpack(residual_data[at]));
    y_data[at] = uvec4(packHalf2x16(s.low.xy), packHalf2x16(s.low.zw), packHalf2x16(s.high.xy),
                       packHalf2x16(s.high.zw));
}
