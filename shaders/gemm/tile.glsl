// Micro-kernel of gemm and conv2d: a workgroup of LANES invocations makes a tile of ROWS rows and
// LANES * COLS columns of y = x w. Every invocation sums all rows of its COLS columns, so w is read
// once a tile and x is the same for all lanes.
//
// Rows and columns past the end repeat the last one: their loads stay inside the buffers and their
// stores write the same value again, so nothing here branches on an edge.
//
// The includer defines params with m, n and k, PADDED (whether rows of x can be absent) and
// locate() and finish().

#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_ballot : require

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LANES = 8;
layout(constant_id = 1) const uint ROWS = 8;
layout(constant_id = 2) const uint COLS = 4;
layout(constant_id = 3) const uint WIDTH = 4;  // of loads: 4 if k and n are multiples of 4, else 1
// Software Vulkan has no cheap load of one address for all lanes: each of 8 lanes loads another row
// of x, and rows are broadcast from registers. Needs LANES = subgroup size = 8.
layout(constant_id = 4) const bool BROADCAST = false;
layout(constant_id = 5) const uint ACTIVATION = 0;
layout(constant_id = 6) const bool BIAS = false;
layout(constant_id = 7) const bool RESIDUAL = false;
layout(constant_id = 8) const bool GATE = false;

layout(std430, binding = 0) readonly restrict buffer X { Stored x[]; };
layout(std430, binding = 0) readonly restrict buffer X4 { Stored4 x4[]; };
layout(std430, binding = 1) readonly restrict buffer W { Stored w[]; };
layout(std430, binding = 1) readonly restrict buffer W4 { Stored4 w4[]; };
layout(std430, binding = 2) writeonly restrict buffer Y { Stored y[]; };
layout(std430, binding = 2) writeonly restrict buffer Y4 { Stored4 y4[]; };
layout(std430, binding = 3) readonly restrict buffer Bias { Stored bias[]; };
layout(std430, binding = 3) readonly restrict buffer Bias4 { Stored4 bias4[]; };
layout(std430, binding = 4) readonly restrict buffer Residual { Stored residual[]; };
layout(std430, binding = 4) readonly restrict buffer Residual4 { Stored4 residual4[]; };

const uint GROUPS = COLS / WIDTH;  // of adjacent columns of a lane
const uint PARTS = BROADCAST ? (ROWS + 7) / 8 : ROWS;

uint tile_row, tile_column;  // the first of the tile
uint x_base[PARTS];          // where a row's k = 0 lies in x
bool x_valid[PARTS];
float acc[ROWS][COLS];

// Sums on their way to finish(): each invocation reads back what it wrote itself. Indexing
// registers would unroll the epilogue, and its loads and stores dominate compilation.
shared vec4 staged[ROWS * GROUPS * LANES];

// Where k = 0 of a row of the tile lies in x, and whether it is there at all.
uint locate(uint row, int dy, int dx, out bool valid);

// What the op makes of the sums of group g of a row.
vec4 finish(vec4 sum, uint row, uint g);

void begin_tile() {
    tile_row = (gl_WorkGroupID.y + gl_WorkGroupID.z * gl_NumWorkGroups.y) * ROWS;
    tile_column = gl_WorkGroupID.x * LANES * COLS;
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        [[unroll]] for (uint c = 0; c < COLS; ++c) acc[r][c] = 0.0;
    }
}

uint row_of(uint r) { return min(tile_row + r, params.m - 1); }

// First of this lane's WIDTH adjacent columns of group g.
uint column_of(uint g) {
    return min(tile_column + (g * LANES + gl_LocalInvocationID.x) * WIDTH, params.n - WIDTH);
}

// Reads the lane's columns of group g in the row of n columns that starts at `row`.
#define LOAD_COLUMNS(a, a4, row, g)                              \
    (WIDTH == 4 ? load4(a4[((row) + column_of(g)) / 4])          \
                : vec4(load(a[(row) + column_of(g)]), 0, 0, 0))

void store_columns(uint row, uint g, vec4 value) {
    if (WIDTH == 4) {
        y4[(row + column_of(g)) / 4] = store4(value);
    } else {
        y[row + column_of(g)] = store(value.x);
    }
}

void place_rows(int dy, int dx) {
    [[unroll]] for (uint p = 0; p < PARTS; ++p) {
        const uint r = BROADCAST ? 8 * p + gl_LocalInvocationID.x : p;
        x_base[p] = locate(row_of(r), dy, dx, x_valid[p]);
    }
}

// acc += x(rows, 0 … k) w(w_row … w_row + k, columns); absent rows are 0.
void accumulate(uint w_row) {
    for (uint k = 0; k < params.k; k += WIDTH) {
        vec4 a[PARTS];
        [[unroll]] for (uint p = 0; p < PARTS; ++p) {
            a[p] = WIDTH == 4 ? load4(x4[(x_base[p] + k) / 4]) : vec4(load(x[x_base[p] + k]), 0, 0, 0);
            if (PADDED) a[p] = x_valid[p] ? a[p] : vec4(0);
        }
        [[unroll]] for (uint g = 0; g < GROUPS; ++g) {
            vec4 b[WIDTH];
            [[unroll]] for (uint i = 0; i < WIDTH; ++i) {
                b[i] = LOAD_COLUMNS(w, w4, (w_row + k + i) * params.n, g);
            }
            [[unroll]] for (uint r = 0; r < ROWS; ++r) {
                [[unroll]] for (uint i = 0; i < WIDTH; ++i) {
                    const float xi = BROADCAST ? subgroupBroadcast(a[r / 8][i], r % 8) : a[r][i];
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
    [[dont_unroll]] for (uint i = 0; i < ROWS * GROUPS; ++i) {
        const uint row = row_of(i / GROUPS), g = i % GROUPS;
        const vec4 value = finish(staged[i * LANES + gl_LocalInvocationID.x], row, g);
        store_columns(row * params.n, g, value);
    }
}
