// Tile of gemm and conv2d on matrix units: a workgroup makes ROWS × COLUMNS of y = x w, each of its
// subgroups ROW_MATRICES × COLUMN_MATRICES matrices of sums in registers; what a subgroup reads
// from shared memory a product falls with both, so they are large. x and w pass through shared
// memory in slabs of DEPTH along k; while one is multiplied, the next AHEAD are on their way into
// registers. With two BUFFERS a slab costs one barrier, with one it costs two, and half the shared
// memory.
//
// The walk along k has no branches: compilers then schedule loads and products freely. So loads
// past an end go to the last element there is, and what must count as 0 becomes so on its way to
// shared memory.
//
// Vectors are 8 elements: k, of a convolution the channels, is a multiple of 8. Rows and columns
// past the end repeat the last ones and are not written; k past the end counts as 0 in x and in w.
//
// The includer defines the functions declared below.

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
layout(constant_id = 11) const uint RAGGED = 1;  // 0: k is a multiple of ROUND slabs

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
// Slabs unrolled: buffers and registers have constant addresses, sums move less from round to round.
const uint ROUND = 2;

shared uvec4 x_tile[BUFFERS * X_SIZE];
shared uvec4 w_tile[BUFFERS * W_SIZE];
shared float y_tile[SUBGROUPS * MAT_M * Y_STRIDE];

MatrixC sums[ROW_MATRICES * COLUMN_MATRICES];
uvec4 x_next[AHEAD * X_LOADS];
uvec4 w_next[AHEAD * W_LOADS];
uint first_row, first_column;
uint w_column;                          // this invocation's vector of w's rows
uint walk_start, walk_end, walk;        // slabs of this part of k; the next to fetch

// Notes where the X_LOADS rows first_row + x_row(i) lie, each clamped to the last.
void locate_rows();
// Place the walk on the slab, and lead it on from slab `walk`, round from the last to the first.
void start_walk(uint slab);
void step_walk();
// Of row i of those: this invocation's vector of the slab, or any other where it counts as 0.
uvec4 load_x(uint i);
#ifdef X_HAS_HOLES
uint rows_with_x();  // for which rows it does not count as 0, a bit each
#endif

// Eight invocations that store at once shall touch all banks, rows being X_STRIDE vectors apart.
uint x_row(uint i) {
    const uint number = gl_LocalInvocationIndex / X_VECTORS;
    if (X_STEP % 8 != 0 || 8 % X_VECTORS != 0) return i * X_STEP + number;
    const uint together = 8 / X_VECTORS, in_eight = number % 8;
    return i * X_STEP + number - in_eight + in_eight % together * X_VECTORS + in_eight / together;
}

bool last_of_walk() { return walk + 1 == walk_end; }

uint x_vector() { return gl_LocalInvocationIndex % X_VECTORS; }

// Workgroups run about in order of number: a band of rows goes through all columns, so that those
// running at once share rows of x and columns of w in the cache.
bool place_tile(uint number) {
    const uint down = (params.m + ROWS - 1) / ROWS, across = (params.n + COLUMNS - 1) / COLUMNS;
    if (number >= down * across) return false;
    const uint band = number / (params.band * across), in_band = number - band * params.band * across;
    const uint rows = min(params.band, down - band * params.band);
    first_row = (band * params.band + in_band % rows) * ROWS;
    first_column = in_band / rows * COLUMNS;
    w_column = min(first_column / 8 + gl_LocalInvocationIndex % W_VECTORS, vectors_of_row() - 1);
    return true;
}

uint slab_of[AHEAD], rows_of[AHEAD];  // of a fetched slab: its number, and rows_with_x()

// The walk's slab into part `set` of the registers.
void fetch(uint set) {
    UNROLLED for (uint i = 0; i < X_LOADS; ++i) x_next[set * X_LOADS + i] = load_x(i);
#ifdef X_HAS_HOLES
    rows_of[set] = rows_with_x();
#endif
    UNROLLED for (uint i = 0; i < W_LOADS; ++i) {
        uint row = walk * DEPTH + i * W_STEP + gl_LocalInvocationIndex / W_VECTORS;
        if (RAGGED != 0 || W_LOADS * W_STEP != DEPTH) row = min(row, params.k - 1);
        w_next[set * W_LOADS + i] = COLUMNS_OF(w_data, row, w_column);
    }
    slab_of[set] = walk;
    step_walk();
    walk = mix(walk + 1, walk_start, last_of_walk());
}

void stage(uint set, uint buffer_number) {
    const bool x_ends =
        RAGGED != 0 && slab_of[set] * X_VECTORS + x_vector() >= params.k / 8;
    UNROLLED for (uint i = 0; i < X_LOADS; ++i) {
        uvec4 v = x_next[set * X_LOADS + i];
#ifdef X_HAS_HOLES
        v = mix(uvec4(0), v, bvec4((rows_of[set] >> i & 1) != 0));
#endif
        if (RAGGED != 0) v = mix(v, uvec4(0), bvec4(x_ends));
        if (X_LOADS * X_STEP == ROWS || x_row(i) < ROWS)
            x_tile[buffer_number * X_SIZE + x_row(i) * X_STRIDE + x_vector()] = v;
    }
    UNROLLED for (uint i = 0; i < W_LOADS; ++i) {
        const uint row = i * W_STEP + gl_LocalInvocationIndex / W_VECTORS;
        uvec4 v = w_next[set * W_LOADS + i];
        if (RAGGED != 0)
            v = mix(v, uvec4(0), bvec4(slab_of[set] * DEPTH + row >= params.k));
        if (W_LOADS * W_STEP == DEPTH || row < DEPTH)
            w_tile[buffer_number * W_SIZE + row * W_STRIDE +
                   gl_LocalInvocationIndex % W_VECTORS] = v;
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

// The last fetches and stage are of slabs that nobody multiplies.
void accumulate(uint slabs) {
    UNROLLED for (uint n = 0; n < ROW_MATRICES * COLUMN_MATRICES; ++n) CLEAR(sums[n]);
    fetch(0);
    stage(0, 0);
    UNROLLED for (uint i = 0; i < AHEAD; ++i) fetch((i + 1) % AHEAD);
    barrier();
    for (uint slab = 0; slab < slabs; slab += ROUND)
        UNROLLED for (uint i = 0; i < ROUND; ++i) {
            if (BUFFERS == 1) {
                multiply(0);
                barrier();
            }
            stage((i + 1) % AHEAD, (i + 1) % BUFFERS);
            fetch((i + 1) % AHEAD);
            if (BUFFERS == 2) multiply(i % BUFFERS);
            barrier();
        }
}

// Through shared memory, a matrix at a time: 8 columns of a row an invocation. Unrolled, although it
// is many instructions: a loop that picks its matrix puts all of them into memory, in the walk along
// k too (37 instead of 279 TFLOP/s on an H200).
void write_tile() {
    const uint scratch = gl_SubgroupID * MAT_M * Y_STRIDE;
    UNROLLED for (uint number = 0; number < ROW_MATRICES * COLUMN_MATRICES; ++number) {
        const uint matrix_row = first_row + own_row() + number / COLUMN_MATRICES * MAT_M;
        const uint matrix_column =
            first_column + own_column() + number % COLUMN_MATRICES * MAT_N;
        subgroupBarrier();
        STORE_C(sums[number], y_tile, scratch, Y_STRIDE);
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
    // Whole rounds; slabs past the end of k are 0.
    const uint all = (params.k + ROUND * DEPTH - 1) / (ROUND * DEPTH) * ROUND;
    walk_start = gl_WorkGroupID.z * params.split_slabs;
    walk_end = min(walk_start + params.split_slabs, all);
    walk = walk_start + first_row / ROWS * params.turn % (walk_end - walk_start);
    start_walk(walk);
    accumulate(walk_end - walk_start);
    write_tile();
}
