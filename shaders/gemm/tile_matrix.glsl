// Tile of gemm and conv2d on matrix units: a workgroup makes ROWS × COLUMNS of y = x w, each of its
// subgroups ROW_MATRICES × COLUMN_MATRICES matrices of sums in registers; what a subgroup reads
// from shared memory a product falls with both, so they are large. x and w pass through shared
// memory in slabs of DEPTH along k; while one is multiplied, the next AHEAD are on their way into
// registers. With two BUFFERS a slab costs one barrier, with one it costs two, and half the shared
// memory.
//
// Vectors are 8 elements: k, of a convolution the channels, is a multiple of 8. Rows and columns
// past the end repeat the last ones and are not written; k past the end counts as 0 in x and in w.
//
// The includer defines locate_rows() and load_x().

#include "gemm/epilogue_matrix.glsl"

layout(constant_id = 0) const uint WORKGROUP = 32;
layout(constant_id = 1) const uint SUBGROUP_ROWS = 1;
layout(constant_id = 2) const uint SUBGROUP_COLUMNS = 1;
layout(constant_id = 3) const uint ROW_MATRICES = 1;
layout(constant_id = 4) const uint COLUMN_MATRICES = 1;
layout(constant_id = 5) const uint DEPTH = 32;
layout(constant_id = 6) const uint BUFFERS = 1;
layout(constant_id = 7) const uint AHEAD = 1;
layout(constant_id = 8) const uint MAT_M = 16;
layout(constant_id = 9) const uint MAT_N = 16;
layout(constant_id = 10) const uint MAT_K = 16;

const uint SUBGROUPS = SUBGROUP_ROWS * SUBGROUP_COLUMNS;
const uint LANES = WORKGROUP / SUBGROUPS;
const uint ROWS = SUBGROUP_ROWS * ROW_MATRICES * MAT_M;
const uint COLUMNS = SUBGROUP_COLUMNS * COLUMN_MATRICES * MAT_N;

#include "common/index.glsl"
#include "common/matrices.glsl"

layout(std430, binding = 0) readonly restrict buffer X { uvec4 x_data[]; };
layout(std430, binding = 1) readonly restrict buffer W { Columns w_data[]; };
layout(std430, binding = 6) writeonly restrict buffer Partial { vec4 partial[]; };

const uint X_VECTORS = DEPTH / 8;
const uint W_VECTORS = COLUMNS / 8;
const uint X_STRIDE = X_VECTORS | 1;  // odd where the count is even: no bank conflicts
const uint W_STRIDE = W_VECTORS | 1;
const uint X_SIZE = ROWS * X_STRIDE;
const uint W_SIZE = DEPTH * W_STRIDE;
// Rows that the workgroup loads at once; both divide, see matrix_tile.cpp.
const uint X_STEP = WORKGROUP / X_VECTORS;
const uint W_STEP = WORKGROUP / W_VECTORS;
const uint X_LOADS = (ROWS + X_STEP - 1) / X_STEP;
const uint W_LOADS = (DEPTH + W_STEP - 1) / W_STEP;
const uint Y_STRIDE = MAT_N + 4;
const uint BAND = 8;

shared uvec4 x_tile[BUFFERS * X_SIZE];
shared uvec4 w_tile[BUFFERS * W_SIZE];
shared float y_tile[SUBGROUPS * MAT_M * Y_STRIDE];

MatrixC sums[ROW_MATRICES * COLUMN_MATRICES];
uvec4 x_next[AHEAD * X_LOADS];
uvec4 w_next[AHEAD * W_LOADS];
uint first_row, first_column;
uint w_column;  // this invocation's vector of w's rows

// Notes where the X_LOADS rows first_row + x_row(i) lie, each clamped to the last.
void locate_rows();
// Of row i of those: the vector `vector` along k, 0 past the end.
uvec4 load_x(uint i, uint vector);

uint x_row(uint i) { return i * X_STEP + gl_LocalInvocationIndex / X_VECTORS; }

// Workgroups run about in order of number: a band of rows goes through all columns, so that those
// running at once share rows of x and columns of w in the cache.
bool place_tile(uint number) {
    const uint down = (params.m + ROWS - 1) / ROWS, across = (params.n + COLUMNS - 1) / COLUMNS;
    if (number >= down * across) return false;
    const uint band = number / (BAND * across), in_band = number - band * BAND * across;
    const uint rows = min(BAND, down - band * BAND);
    first_row = (band * BAND + in_band % rows) * ROWS;
    first_column = in_band / rows * COLUMNS;
    w_column = min(first_column / 8 + gl_LocalInvocationIndex % W_VECTORS, vectors_of_row() - 1);
    return true;
}

// Into or out of part `set` of the registers.
void fetch(uint slab, uint set) {
    UNROLLED for (uint i = 0; i < X_LOADS; ++i)
        x_next[set * X_LOADS + i] =
            load_x(i, slab * X_VECTORS + gl_LocalInvocationIndex % X_VECTORS);
    UNROLLED for (uint i = 0; i < W_LOADS; ++i) {
        const uint row = slab * DEPTH + i * W_STEP + gl_LocalInvocationIndex / W_VECTORS;
        w_next[set * W_LOADS + i] = uvec4(0);
        if (row < params.k) w_next[set * W_LOADS + i] = COLUMNS_OF(w_data, row, w_column);
    }
}

void stage(uint set, uint buffer_number) {
    UNROLLED for (uint i = 0; i < X_LOADS; ++i)
        if (X_LOADS * X_STEP == ROWS || x_row(i) < ROWS)
            x_tile[buffer_number * X_SIZE + x_row(i) * X_STRIDE +
                   gl_LocalInvocationIndex % X_VECTORS] = x_next[set * X_LOADS + i];
    UNROLLED for (uint i = 0; i < W_LOADS; ++i) {
        const uint row = i * W_STEP + gl_LocalInvocationIndex / W_VECTORS;
        if (W_LOADS * W_STEP == DEPTH || row < DEPTH)
            w_tile[buffer_number * W_SIZE + row * W_STRIDE +
                   gl_LocalInvocationIndex % W_VECTORS] = w_next[set * W_LOADS + i];
    }
}

uint own_row() { return gl_SubgroupID / SUBGROUP_COLUMNS * ROW_MATRICES * MAT_M; }
uint own_column() { return gl_SubgroupID % SUBGROUP_COLUMNS * COLUMN_MATRICES * MAT_N; }

void multiply(uint buffer_number) {
    const uint x_at = buffer_number * X_SIZE + own_row() * X_STRIDE;
    const uint w_at = buffer_number * W_SIZE + own_column() / 8;
    UNROLLED for (uint k = 0; k < DEPTH; k += MAT_K) {
        MatrixA a[ROW_MATRICES];
        UNROLLED for (uint r = 0; r < ROW_MATRICES; ++r)
            LOAD_A(a[r], x_tile, x_at + r * MAT_M * X_STRIDE + k / 8, X_STRIDE);
        UNROLLED for (uint c = 0; c < COLUMN_MATRICES; ++c) {
            MatrixB b;
            LOAD_B(b, w_tile, w_at + k * W_STRIDE + c * MAT_N / 8, W_STRIDE);
            UNROLLED for (uint r = 0; r < ROW_MATRICES; ++r)
                sums[r * COLUMN_MATRICES + c] =
                    multiply_add(a[r], b, sums[r * COLUMN_MATRICES + c]);
        }
    }
}

const uint ROUND = BUFFERS > AHEAD ? BUFFERS : AHEAD;  // slabs; both are 1 or 2

// Straight-line slabs: the last fetch and stage more that nobody multiplies, and a round may
// multiply one slab past the end of k, which is 0.
void accumulate(uint first_slab, uint end_slab) {
    UNROLLED for (uint n = 0; n < ROW_MATRICES * COLUMN_MATRICES; ++n) CLEAR(sums[n]);
    UNROLLED for (uint i = 0; i < AHEAD; ++i) fetch(first_slab + i, i);
    stage(0, 0);
    barrier();
    for (uint slab = first_slab; slab < end_slab; slab += ROUND)
        // Unrolled, so that buffers and registers have constant addresses.
        UNROLLED for (uint i = 0; i < ROUND; ++i) {
            fetch(slab + i + AHEAD, i % AHEAD);
            multiply(i % BUFFERS);
            if (BUFFERS == 1) barrier();
            stage((i + 1) % AHEAD, (i + 1) % BUFFERS);
            barrier();
        }
}

// Through shared memory, a matrix at a time: 8 columns of a row an invocation.
void write_tile() {
    const uint scratch = gl_SubgroupID * MAT_M * Y_STRIDE;
    UNROLLED for (uint n = 0; n < ROW_MATRICES * COLUMN_MATRICES; ++n) {
        const uint matrix_row = first_row + own_row() + n / COLUMN_MATRICES * MAT_M;
        const uint matrix_column = first_column + own_column() + n % COLUMN_MATRICES * MAT_N;
        subgroupBarrier();
        STORE_C(sums[n], y_tile, scratch, Y_STRIDE);
        subgroupBarrier();
        for (uint at = gl_SubgroupInvocationID; at < MAT_M * MAT_N / 8; at += LANES) {
            const uint row = matrix_row + at / (MAT_N / 8);
            const uint column = matrix_column + at % (MAT_N / 8) * 8;
            if (row >= params.m || column >= params.n) continue;
            const uint from = scratch + at / (MAT_N / 8) * Y_STRIDE + at % (MAT_N / 8) * 8;
            const Sums s = Sums(
                vec4(y_tile[from], y_tile[from + 1], y_tile[from + 2], y_tile[from + 3]),
                vec4(y_tile[from + 4], y_tile[from + 5], y_tile[from + 6], y_tile[from + 7]));
            if (params.splits == 1) {
                write_y(row, column / 8, s);
            } else {
                const uint to =
                    2 * ((gl_WorkGroupID.z * params.m + row) * vectors_of_row() + column / 8);
                partial[to] = s.low;
                partial[to + 1] = s.high;
            }
        }
    }
}

void main() {
    if (!place_tile(linear_group())) return;
    locate_rows();
    const uint slabs = (params.k + DEPTH - 1) / DEPTH;
    const uint first = gl_WorkGroupID.z * params.split_slabs;
    accumulate(first, min(first + params.split_slabs, slabs));
    write_tile();
}
