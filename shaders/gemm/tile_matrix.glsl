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
const uint STEPS = DEPTH / MAT_K;
// A row of a subgroup's matrices at a time leaves through the memory of the slabs.
const uint STRIP_VECTORS = COLUMN_MATRICES * MAT_N / 4;
const uint STRIP_STRIDE = STRIP_VECTORS | 1;
const uint STRIP_SIZE = MAT_M * STRIP_STRIDE;
const uint W_START = BUFFERS * X_SIZE;
const uint SLABS_SIZE = BUFFERS * (X_SIZE + W_SIZE);
const uint SHARED_SIZE =
    SLABS_SIZE > SUBGROUPS * STRIP_SIZE ? SLABS_SIZE : SUBGROUPS * STRIP_SIZE;
// Slabs unrolled: buffers and registers have constant addresses, sums move less from round to round.
const uint ROUND = 2;

shared uvec4 tile[SHARED_SIZE];  // x's slabs, w's slabs; in the end strips of sums

MatrixC sums[ROW_MATRICES * COLUMN_MATRICES];
MatrixA a[2 * ROW_MATRICES];  // of this step and the next
MatrixB b[2 * COLUMN_MATRICES];
uvec4 x_next[AHEAD * X_LOADS];
uvec4 w_next[AHEAD * W_LOADS];
uint first_row, first_column;
uint w_column;                          // this invocation's vector of w's rows
uint w_at;                              // its first vector of the walk's slab of w
uint walk_end, walk;                    // slabs of this part of k; the next to fetch

// Notes where the X_LOADS rows first_row + x_row(i) lie, each clamped to the last.
void locate_rows();
// Place the walk on slab `walk`, and lead it on by one slab or none.
void start_walk();
void step_walk(uint slabs);
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

// The walk's slab into part `set` of the registers. At the end the walk stays on the last.
void fetch(uint set) {
    UNROLLED for (uint i = 0; i < X_LOADS; ++i) x_next[set * X_LOADS + i] = load_x(i);
#ifdef X_HAS_HOLES
    rows_of[set] = rows_with_x();
#endif
    UNROLLED for (uint i = 0; i < W_LOADS; ++i) {
#ifdef NARROW
        const uint row = i * W_STEP + gl_LocalInvocationIndex / W_VECTORS;
        w_next[set * W_LOADS + i] =
            COLUMNS_OF(w_data, min(walk * DEPTH + row, params.k - 1), w_column);
#else
        uint at = w_at + i * W_STEP * (params.n / 8);
        if (RAGGED != 0 || W_LOADS * W_STEP != DEPTH)
            at = min(at, (params.k - 1) * (params.n / 8) + w_column);
        w_next[set * W_LOADS + i] = w_data[at];
#endif
    }
    slab_of[set] = walk;
    const uint on = walk + 1 < walk_end ? 1 : 0;
    walk += on;
    w_at += on * DEPTH * (params.n / 8);
    step_walk(on);
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
            tile[buffer_number * X_SIZE + x_row(i) * X_STRIDE + x_vector()] = v;
    }
    UNROLLED for (uint i = 0; i < W_LOADS; ++i) {
        const uint row = i * W_STEP + gl_LocalInvocationIndex / W_VECTORS;
        uvec4 v = w_next[set * W_LOADS + i];
        if (RAGGED != 0)
            v = mix(v, uvec4(0), bvec4(slab_of[set] * DEPTH + row >= params.k));
        if (W_LOADS * W_STEP == DEPTH || row < DEPTH)
            tile[W_START + buffer_number * W_SIZE + row * W_STRIDE +
                 gl_LocalInvocationIndex % W_VECTORS] = v;
    }
}

uint own_row() { return gl_SubgroupID / SUBGROUP_COLUMNS * ROW_MATRICES * MAT_M; }
uint own_column() { return gl_SubgroupID % SUBGROUP_COLUMNS * COLUMN_MATRICES * MAT_N; }

// Operands of a step, from the slab in a buffer into half `half_number` of the registers.
void load(uint half_number, uint buffer_number, uint step_number) {
    const uint x_at = buffer_number * X_SIZE + own_row() * X_STRIDE + step_number * (MAT_K / 8);
    const uint w_at = W_START + buffer_number * W_SIZE + step_number * MAT_K * W_STRIDE +
                      own_column() / 8;
    UNROLLED for (uint r = 0; r < ROW_MATRICES; ++r)
        LOAD_A(a[half_number * ROW_MATRICES + r], tile, x_at + r * MAT_M * X_STRIDE, X_STRIDE);
    UNROLLED for (uint c = 0; c < COLUMN_MATRICES; ++c)
        LOAD_B(b[half_number * COLUMN_MATRICES + c], tile, w_at + c * MAT_N / 8, W_STRIDE);
}

void multiply(uint half_number, uint first, uint end) {
    UNROLLED for (uint c = first; c < end; ++c)
        UNROLLED for (uint r = 0; r < ROW_MATRICES; ++r)
            sums[r * COLUMN_MATRICES + c] =
                multiply_add(a[half_number * ROW_MATRICES + r],
                             b[half_number * COLUMN_MATRICES + c], sums[r * COLUMN_MATRICES + c]);
}

// The last fetches and stage are of slabs that nobody multiplies.
void accumulate(uint slabs) {
    UNROLLED for (uint n = 0; n < ROW_MATRICES * COLUMN_MATRICES; ++n) CLEAR(sums[n]);
    fetch(0);
    stage(0, 0);
    UNROLLED for (uint i = 0; i < AHEAD; ++i) fetch((i + 1) % AHEAD);
    barrier();
    load(0, 0, 0);
    for (uint slab = 0; slab < slabs; slab += ROUND)
        UNROLLED for (uint i = 0; i < ROUND; ++i) {
            const uint now = i % BUFFERS, next = (i + 1) % BUFFERS;
            UNROLLED for (uint k = 0; k + 1 < STEPS; ++k) {
                load((i * STEPS + k + 1) % 2, now, k + 1);
                multiply((i * STEPS + k) % 2, 0, COLUMN_MATRICES);
            }
            const uint last = (i * STEPS + STEPS - 1) % 2;
            if (BUFFERS == 1) barrier();
            stage((i + 1) % AHEAD, next);
            fetch((i + 1) % AHEAD);
            multiply(last, 0, COLUMN_MATRICES / 2);
            barrier();
            load(1 - last, next, 0);
            multiply(last, COLUMN_MATRICES / 2, COLUMN_MATRICES);
        }
    barrier();
}

// A row of matrices at a time. The loop is none for the compiler to unroll (there is much to do to a
// sum), and picks its matrices by comparison: an index would put all of them into memory, in the
// walk along k too.
void write_tile() {
    const uint scratch = gl_SubgroupID * STRIP_SIZE;
    [[dont_unroll]] for (uint strip = 0; strip < ROW_MATRICES; ++strip) {
        subgroupBarrier();
        UNROLLED for (uint r = 0; r < ROW_MATRICES; ++r)
            if (r == strip)
                UNROLLED for (uint c = 0; c < COLUMN_MATRICES; ++c)
                    STORE_C_VECTORS(sums[r * COLUMN_MATRICES + c], tile,
                                    scratch + c * MAT_N / 4, STRIP_STRIDE);
        subgroupBarrier();
        const uint vectors = STRIP_VECTORS / 2;
        for (uint at = gl_SubgroupInvocationID; at < MAT_M * vectors; at += LANES) {
            const uint row = first_row + own_row() + strip * MAT_M + at / vectors;
            const uint column = first_column + own_column() + at % vectors * 8;
            if (row >= params.m || column >= params.n) continue;
            const uint from = scratch + at / vectors * STRIP_STRIDE + at % vectors * 2;
            const Sums s = Sums(uintBitsToFloat(tile[from]), uintBitsToFloat(tile[from + 1]));
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
    walk = gl_WorkGroupID.z * params.split_slabs;
    walk_end = min(walk + params.split_slabs, all);
    w_at = (walk * DEPTH + gl_LocalInvocationIndex / W_VECTORS) * (params.n / 8) + w_column;
    start_walk();
    accumulate(walk_end - walk);
    write_tile();
}
