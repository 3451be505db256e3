#version 460
// Products of few rows, which take as long as reading w does: y = residual + gate * activation(f(x)
// w + bias). A workgroup makes LANES vectors of adjacent columns of up to ROWS rows: that many
// neighbouring invocations read a row of w, and k is dealt to the others, DEPTH rows of w on their
// way at once. Their sums are added in one order, whatever the number of rows of x.
//
// Dispatch: (column groups, folded into y as in index.glsl, row groups in z).
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common/types.glsl"
#include "common/activation.glsl"
#include "common/index.glsl"
#include "gemm/gemm_params.h"

layout(constant_id = 1) const uint LANES = 4;
layout(constant_id = 2) const uint ROWS = 1;
layout(constant_id = 3) const uint X_ACTIVATION = 0;

const uint DEPTH = 8;
const uint PARTS = gl_WorkGroupSize.x / LANES;

// 16 bytes a load.
#ifdef STORAGE_F16
#define Vector uvec4
const uint WIDTH = 8;
float element(Vector v, uint i) { return unpackHalf2x16(v[i / 2])[i % 2]; }
#else
#define Vector vec4
const uint WIDTH = 4;
float element(Vector v, uint i) { return v[i]; }
#endif
const uint X_LOADS = DEPTH / WIDTH;

layout(push_constant) uniform Push { ThinParams params; };
layout(std430, binding = 0) readonly restrict buffer X { Vector x[]; };
layout(std430, binding = 1) readonly restrict buffer W { Vector w[]; };
layout(std430, binding = 2) writeonly restrict buffer Y { Stored y[]; };
layout(std430, binding = 3) readonly restrict buffer Bias { Stored bias[]; };
layout(std430, binding = 4) readonly restrict buffer Residual { Stored residual[]; };
layout(std430, binding = 5) readonly restrict buffer Gate { Stored gate[]; };

shared vec4 partial[PARTS * LANES * WIDTH / 4];  // of a row: (part, column)

float acc[ROWS * WIDTH];

bool has(uint flag) { return (params.flags & flag) != 0; }

uint row_of(uint r) { return gl_WorkGroupID.z * ROWS + r; }

void accumulate(uint column, uint part) {
    const uint vectors = params.n / WIDTH;
    [[unroll]] for (uint i = 0; i < ROWS * WIDTH; ++i) acc[i] = 0;
    [[dont_unroll]] for (uint k = part * DEPTH; k < params.k; k += PARTS * DEPTH) {
        Vector rows_of_w[DEPTH];
        [[unroll]] for (uint i = 0; i < DEPTH; ++i) rows_of_w[i] = w[(k + i) * vectors + column];
        [[unroll]] for (uint r = 0; r < ROWS; ++r) {
            // Rows past the end repeat the last one, and are not written.
            const uint at = (min(row_of(r), params.m - 1) * params.k + k) / WIDTH;
            Vector a[X_LOADS];
            [[unroll]] for (uint i = 0; i < X_LOADS; ++i) a[i] = x[at + i];
            [[unroll]] for (uint i = 0; i < DEPTH; ++i) {
                const float xi = activate(element(a[i / WIDTH], i % WIDTH), X_ACTIVATION);
                [[unroll]] for (uint j = 0; j < WIDTH; ++j)
                    acc[r * WIDTH + j] = fma(xi, element(rows_of_w[i], j), acc[r * WIDTH + j]);
            }
        }
    }
}

void write(uint row, uint column, float sum) {
    const uint at = row * params.n + column;
    if (has(THIN_BIAS)) sum += load(bias[column]);
    sum = activate(sum, params.activation);
    if (has(THIN_GATE)) sum *= load(gate[row / params.gate_rows * params.n + column]);
    if (has(THIN_RESIDUAL)) sum += load(residual[at]);
    y[at] = store(sum);
}

void main() {
    const uint own = gl_LocalInvocationIndex, lane = own % LANES, part = own / LANES;
    const uint first = linear_group() * LANES;  // of the group's vectors
    accumulate(min(first + lane, params.n / WIDTH - 1), part);

    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        barrier();  // the sums of the row before have been read
        [[unroll]] for (uint i = 0; i < WIDTH / 4; ++i) {
            vec4 four;
            [[unroll]] for (uint j = 0; j < 4; ++j) four[j] = acc[r * WIDTH + i * 4 + j];
            partial[own * (WIDTH / 4) + i] = four;
        }
        barrier();
        const uint column = first * WIDTH + own;
        if (own < LANES * WIDTH && column < params.n && row_of(r) < params.m) {
            float sum = 0;
            for (uint p = 0; p < PARTS; ++p) sum += partial[(p * LANES * WIDTH + own) / 4][own % 4];
            write(row_of(r), column, sum);
        }
    }
}
