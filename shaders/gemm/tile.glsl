// Micro-kernel of gemm and conv2d: a workgroup of LANES invocations makes a tile of ROWS rows and
// LANES * COLS columns of y = x w. Every invocation sums all rows of its COLS columns, so w is read
// once a tile and x is the same for all lanes.
//
// Rows and columns past the end repeat the last one: their loads stay inside the buffers and their
// stores write the same value again, so nothing here branches on an edge.
//
// The includer defines params with m, n and k, PADDED (whether rows of x can be absent) and
// finish(). With SOFTWARE it is for Mesa's llvmpipe, see loads_software.glsl.

#extension GL_EXT_control_flow_attributes : require

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LANES = 8;
layout(constant_id = 1) const uint ROWS = 8;
layout(constant_id = 2) const uint COLS = 4;
layout(constant_id = 3) const uint WIDTH = 4;  // adjacent columns of a lane: 4, 1 if n needs it
layout(constant_id = 4) const uint STEP = 4;   // of k: 4, 1 if k needs it
layout(constant_id = 5) const uint ACTIVATION = 0;
layout(constant_id = 6) const bool BIAS = false;
layout(constant_id = 7) const bool RESIDUAL = false;
layout(constant_id = 8) const bool GATE = false;

layout(std430, binding = 0) readonly restrict buffer X { Stored x[]; };
layout(std430, binding = 1) readonly restrict buffer W { Stored w[]; };
layout(std430, binding = 2) writeonly restrict buffer Y { Stored y[]; };
layout(std430, binding = 2) writeonly restrict buffer Y4 { Stored4 y4[]; };
layout(std430, binding = 3) readonly restrict buffer Bias { Stored bias[]; };
layout(std430, binding = 3) readonly restrict buffer Bias4 { Stored4 bias4[]; };
layout(std430, binding = 4) readonly restrict buffer Residual { Stored residual[]; };
layout(std430, binding = 4) readonly restrict buffer Residual4 { Stored4 residual4[]; };

const uint GROUPS = COLS / WIDTH;  // of adjacent columns

// What the op makes of the sums, with the bias, of group g of a row.
vec4 finish(vec4 sum, uint row, uint g);

// The rows of x lie in PARTS loads: part_of(r), row_of_part(p) for this lane, x_of(a, r) the value
// of row r out of its part's. load_x and load_w: STEP or WIDTH elements from there.
#ifdef SOFTWARE
#include "gemm/loads_software.glsl"
#else
#include "gemm/loads.glsl"
#endif

uint x_base[PARTS];  // where a row's k = 0 lies in x
bool x_valid[PARTS];
float acc[ROWS][COLS];

// Sums on their way to finish(): each invocation reads back what it wrote itself. Indexing
// registers would unroll the epilogue, whose loads and stores would dominate compilation.
shared vec4 staged[ROWS * GROUPS * LANES];

uint row_of(uint r) {
    const uint tile = gl_WorkGroupID.y + gl_WorkGroupID.z * gl_NumWorkGroups.y;
    return min(tile * ROWS + r, params.m - 1);
}

// First of this lane's adjacent columns of group g.
uint column_of(uint g) {
    const uint group = (gl_WorkGroupID.x * GROUPS + g) * LANES + gl_LocalInvocationID.x;
    return min(group * WIDTH, params.n - WIDTH);
}

// Reads the lane's columns of group g in the row of n columns that starts at `row`.
#define LOAD_COLUMNS(a, a4, row, g)                     \
    (WIDTH == 4 ? load4(a4[((row) + column_of(g)) / 4]) \
                : vec4(load(a[(row) + column_of(g)]), 0, 0, 0))

void store_columns(uint row, uint g, vec4 value) {
    if (WIDTH == 4) {
        y4[(row + column_of(g)) / 4] = store4(value);
    } else {
        y[row + column_of(g)] = store(value.x);
    }
}

void begin_tile() {
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        [[unroll]] for (uint c = 0; c < COLS; ++c) acc[r][c] = 0.0;
    }
}

// acc += x(rows, 0 … k) w(w_row … w_row + k, columns); absent rows are 0.
void accumulate(uint w_row) {
    for (uint k = 0; k < params.k; k += STEP) {
        vec4 a[PARTS];
        [[unroll]] for (uint p = 0; p < PARTS; ++p) {
            a[p] = load_x(x_base[p] + k);
            if (PADDED) a[p] = x_valid[p] ? a[p] : vec4(0);
        }
        [[unroll]] for (uint g = 0; g < GROUPS; ++g) {
            vec4 b[STEP];
            [[unroll]] for (uint i = 0; i < STEP; ++i) {
                b[i] = load_w((w_row + k + i) * params.n + column_of(g));
            }
            [[unroll]] for (uint r = 0; r < ROWS; ++r) {
                [[unroll]] for (uint i = 0; i < STEP; ++i) {
                    const float xi = x_of(a[part_of(r)][i], r);
                    [[unroll]] for (uint j = 0; j < WIDTH; ++j) {
                        acc[r][g * WIDTH + j] = fma(xi, b[i][j], acc[r][g * WIDTH + j]);
                    }
                }
            }
        }
    }
}

void end_tile() {
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        [[unroll]] for (uint g = 0; g < GROUPS; ++g) {
            vec4 sum = vec4(0);
            [[unroll]] for (uint j = 0; j < WIDTH; ++j) sum[j] = acc[r][g * WIDTH + j];
            staged[(r * GROUPS + g) * LANES + gl_LocalInvocationID.x] = sum;
        }
    }
    [[dont_unroll]] for (uint g = 0; g < GROUPS; ++g) {
        const vec4 b = BIAS ? LOAD_COLUMNS(bias, bias4, 0, g) : vec4(0);
        [[dont_unroll]] for (uint r = 0; r < ROWS; ++r) {
            const vec4 sum = staged[(r * GROUPS + g) * LANES + gl_LocalInvocationID.x] + b;
            const uint row = row_of(r);
            store_columns(row * params.n, g, finish(sum, row, g));
        }
    }
}
