// What gemm and conv2d make of 8 adjacent sums, as data of the push constants: branches that all
// lanes take alike cost nothing beside the walk along k, and a pipeline for each combination would
// cost start-up.

#include "common/activation.glsl"
#include "gemm/matrix_params.h"

layout(push_constant) uniform Push { MatrixParams params; };

// Vectors are 8 adjacent columns. With NARROW n is no multiple of that: rows start anywhere, and
// the last vector of one repeats its last column, which is not written.
#ifdef NARROW
#define Columns float16_t
#define HALF(array, row, column) float(array[(row) * params.n + min(column, params.n - 1)])
#define HALVES(array, row, column) \
    packHalf2x16(vec2(HALF(array, row, column), HALF(array, row, (column) + 1)))
#define COLUMNS_OF(array, row, vector)                                                        \
    uvec4(HALVES(array, row, 8 * (vector)), HALVES(array, row, 8 * (vector) + 2),             \
          HALVES(array, row, 8 * (vector) + 4), HALVES(array, row, 8 * (vector) + 6))
#else
#define Columns uvec4
#define COLUMNS_OF(array, row, vector) array[(row) * (params.n / 8) + (vector)]
#endif

layout(std430, binding = 2) writeonly restrict buffer Y { Columns y_data[]; };
layout(std430, binding = 3) readonly restrict buffer Bias { Columns bias_data[]; };
layout(std430, binding = 4) readonly restrict buffer Residual { Columns residual_data[]; };
layout(std430, binding = 5) readonly restrict buffer Gate { Columns gate_data[]; };

uint vectors_of_row() { return (params.n + 7) / 8; }

struct Sums {
    vec4 low, high;
};

Sums unpack(uvec4 v) {
    return Sums(vec4(unpackHalf2x16(v.x), unpackHalf2x16(v.y)),
                vec4(unpackHalf2x16(v.z), unpackHalf2x16(v.w)));
}

Sums add(Sums a, Sums b) { return Sums(a.low + b.low, a.high + b.high); }

bool has(uint flag) { return (params.flags & flag) != 0; }

void write_y(uint row, uint vector, Sums s) {
    if (has(MATRIX_BIAS)) s = add(s, unpack(COLUMNS_OF(bias_data, 0, vector)));
    if (has(MATRIX_RESIDUAL) && has(MATRIX_RESIDUAL_INSIDE))
        s = add(s, unpack(COLUMNS_OF(residual_data, row, vector)));
    s = Sums(activate(s.low, params.activation), activate(s.high, params.activation));
    if (has(MATRIX_GATE)) {
        const Sums g = unpack(COLUMNS_OF(gate_data, row / params.gate_rows, vector));
        s = Sums(s.low * g.low, s.high * g.high);
    }
    if (has(MATRIX_RESIDUAL) && !has(MATRIX_RESIDUAL_INSIDE))
        s = add(s, unpack(COLUMNS_OF(residual_data, row, vector)));
#ifdef NARROW
    for (uint i = 0; i < 8 && 8 * vector + i < params.n; ++i)
        y_data[row * params.n + 8 * vector + i] = float16_t(i < 4 ? s.low[i] : s.high[i - 4]);
#else
    y_data[row * (params.n / 8) + vector] =
        uvec4(packHalf2x16(s.low.xy), packHalf2x16(s.low.zw), packHalf2x16(s.high.xy),
              packHalf2x16(s.high.zw));
#endif
}
