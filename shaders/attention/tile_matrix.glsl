// The tile verbs on matrix units, what khr and nv2 share. A subgroup owns ROW_TILES · MAT_M query
// slots: its q and o are matrices in registers. K and V of a block are staged in shared memory by the whole
// workgroup; while it computes, each invocation already holds its part of the next block in
// registers (10 to 20 % on an H200). More than one row tile reads each key from shared memory once
// for all of them, where registers allow. Scores are q·k, unscaled; the softmax is the path's own:
// begin_softmax, modify_scores, mask_scores, softmax_step (which leaves the weights in `weights` and
// scales o), end_softmax.
//
// Rows are loaded 8 elements at a time: head_dim is a multiple of 8, and padded with zeros to whole
// matrices in shared memory and registers only.

const uint Q_COLUMNS = (HEAD_DIM + MAT_K - 1) / MAT_K * MAT_K;
const uint V_COLUMNS = (V_DIM + MAT_N - 1) / MAT_N * MAT_N;
const uint WIDEST = Q_COLUMNS > V_COLUMNS ? Q_COLUMNS : V_COLUMNS;
const uint STRIDE = WIDEST / 8 + 1;  // of shared rows, in vectors; odd: no bank conflicts
const uint Q_VECTORS = Q_COLUMNS / 8;
const uint V_VECTORS = V_COLUMNS / 8;
const uint K_LOADS = (BC * Q_VECTORS + WORKGROUP - 1) / WORKGROUP;  // of an invocation, a block
const uint V_LOADS = (BC * V_VECTORS + WORKGROUP - 1) / WORKGROUP;
const uint V_AT = BC * STRIDE;

shared uvec4 kv_tile[2 * BC * STRIDE];
shared float s_tile[SUBGROUPS * S_TILE];  // each subgroup's own
// Key tile in which a key's value was found not to be finite: see clean().
shared uint not_finite_in[BC];
shared uint any_not_finite_in;

const uint Q_MATRICES = Q_COLUMNS / MAT_K;
const uint V_MATRICES = V_COLUMNS / MAT_N;
const uint S_MATRICES = BC / MAT_N;
const uint W_MATRICES = BC / MAT_K;

MatrixA q_rows[ROW_TILES * Q_MATRICES];
MatrixC s[ROW_TILES * S_MATRICES];
MatrixA weights[ROW_TILES * W_MATRICES];
MatrixC o[ROW_TILES * V_MATRICES];
uvec4 k_next[K_LOADS];
uvec4 v_next[V_LOADS];
uint kv_head;

void begin_softmax();
void fetch_masks();
void end_softmax();  // o becomes the result; writes the LSE

uint own_slot(uint row) {
    return gl_WorkGroupID.x * BR + gl_SubgroupID * ROW_TILES * MAT_M + row;
}

// Without a branch, which costs a move of every vector that it leaves alone (25 % on an H200): what
// has no token takes the last one's row, since masks keep it out of any sum.
#define FETCH(vectors_next, loads, vectors, dim, data, extra_data)                        \
    UNROLLED for (uint n = 0; n < loads; ++n) {                                           \
        const uint at = n * WORKGROUP + gl_LocalInvocationIndex;                          \
        const uint row = BC * vectors % WORKGROUP == 0 ? at / vectors                     \
                                                       : min(at / vectors, BC - 1);       \
        const bool padded = vectors != dim / 8;                                           \
        const uint column = padded ? min(at % vectors, dim / 8 - 1) : at % vectors;       \
        const uint token = min(key_slot(first + row, extra), len - 1);                    \
        const uint from = (kv_head * len + token) * (dim / 8) + column;                   \
        vectors_next[n] = EXTRA && extra ? extra_data[from] : data[from];                 \
        if (padded && at % vectors >= dim / 8) vectors_next[n] = uvec4(0);                \
    }

void fetch(uint key_tile) {
    const bool extra = is_extra_tile(key_tile);
    const uint first = first_slot(key_tile), len = extra ? params.extra_len : params.kv_len;
    FETCH(k_next, K_LOADS, Q_VECTORS, HEAD_DIM, k_data, k_extra_data)
    if (VALUES) FETCH(v_next, V_LOADS, V_VECTORS, V_DIM, v_data, v_extra_data)
}

// In a partial block a row may not see a key, and 0 · ∞ is NaN: values that are not finite become 0
// there, and a row that does see one gets NaN by its score.
uvec4 clean(uvec4 vector, uint row) {
    const uvec4 low = vector & 0x7c00, high = vector & 0x7c000000;
    const bvec4 bad_low = equal(low, uvec4(0x7c00)), bad_high = equal(high, uvec4(0x7c000000));
    if (!any(bad_low) && !any(bad_high)) return vector;
    not_finite_in[row] = block.x;
    any_not_finite_in = block.x;
    return vector & mix(uvec4(0xffff), uvec4(0), bad_low) |
           vector & mix(uvec4(0xffff0000), uvec4(0), bad_high);
}

void stage(bool partial) {
    UNROLLED for (uint n = 0; n < K_LOADS; ++n) {
        const uint at = n * WORKGROUP + gl_LocalInvocationIndex;
        const uint row = at / Q_VECTORS, column = at % Q_VECTORS;
        if (row < BC) kv_tile[row * STRIDE + column] = k_next[n];
    }
    if (!VALUES) return;
    UNROLLED for (uint n = 0; n < V_LOADS; ++n) {
        const uint at = n * WORKGROUP + gl_LocalInvocationIndex;
        const uint row = at / V_VECTORS, column = at % V_VECTORS;
        if (row < BC)
            kv_tile[V_AT + row * STRIDE + column] =
                partial ? clean(v_next[n], row) : v_next[n];
    }
}

// All rows of q pass through the tile of K and V, as many at a time as fit. The softmax relies on a
// scale above 0.
void load_q() {
    const uint own_rows = ROW_TILES * MAT_M;
    const uint rows_at_once = min(2 * BC, BR) / own_rows * own_rows;
    const uvec4 sign = uvec4(params.scale < 0 ? 0x80008000 : 0);
    [[dont_unroll]] for (uint first = 0; first < BR; first += rows_at_once) {
        barrier();
        UNROLLED for (uint n = 0; n < (rows_at_once * Q_VECTORS + WORKGROUP - 1) / WORKGROUP; ++n) {
            const uint at = n * WORKGROUP + gl_LocalInvocationIndex;
            if (rows_at_once * Q_VECTORS % WORKGROUP != 0 && at >= rows_at_once * Q_VECTORS)
                continue;
            const uint row = at / Q_VECTORS, column = at % Q_VECTORS;
            const uint slot = gl_WorkGroupID.x * BR + first + row;
            const uint token = first + row < BR ? query_token(slot) : NO_TOKEN;
            uvec4 vector = uvec4(0);
            if (token != NO_TOKEN && column < HEAD_DIM / 8)
                vector = sign ^ q_data[(query_head() * params.q_len + token) * (HEAD_DIM / 8) +
                                       column];
            kv_tile[row * STRIDE + column] = vector;
        }
        barrier();
        const uint own = gl_SubgroupID * own_rows;
        if (own >= first && own < first + rows_at_once)
            UNROLLED for (uint r = 0; r < ROW_TILES; ++r)
                UNROLLED for (uint c = 0; c < Q_MATRICES; ++c)
                    LOAD_A(q_rows[r * Q_MATRICES + c], kv_tile,
                           (own - first + r * MAT_M) * STRIDE + c * MAT_K / 8, STRIDE);
    }
}

void begin(uint blocks) {
    kv_head = key_head();
    any_not_finite_in = NO_TOKEN;
    for (uint key = gl_LocalInvocationIndex; key < BC; key += WORKGROUP)
        not_finite_in[key] = NO_TOKEN;
    if (blocks > 0) {
        fetch(block.x);
        load_q();
    }
    if (VALUES) UNROLLED for (uint c = 0; c < ROW_TILES * V_MATRICES; ++c) CLEAR(o[c]);
    begin_softmax();
}

void scores(bool partial) {
    barrier();  // all are done with the tile of the block before
    stage(partial);
    barrier();
    fetch(next_block.x);
    if (partial) fetch_masks();
    UNROLLED for (uint t = 0; t < S_MATRICES; ++t) {
        UNROLLED for (uint r = 0; r < ROW_TILES; ++r) CLEAR(s[r * S_MATRICES + t]);
        UNROLLED for (uint c = 0; c < Q_MATRICES; ++c) {
            MatrixB k_columns;
            LOAD_B_TRANSPOSED(k_columns, kv_tile, t * MAT_N * STRIDE + c * MAT_K / 8, STRIDE);
            UNROLLED for (uint r = 0; r < ROW_TILES; ++r)
                s[r * S_MATRICES + t] = multiply_add(q_rows[r * Q_MATRICES + c], k_columns,
                                                     s[r * S_MATRICES + t]);
        }
    }
}

void accumulate() {
    UNROLLED for (uint t = 0; t < W_MATRICES; ++t)
        UNROLLED for (uint c = 0; c < V_MATRICES; ++c) {
            MatrixB v_rows;
            LOAD_B(v_rows, kv_tile, V_AT + t * MAT_K * STRIDE + c * MAT_N / 8, STRIDE);
            UNROLLED for (uint r = 0; r < ROW_TILES; ++r)
                o[r * V_MATRICES + c] =
                    multiply_add(weights[r * W_MATRICES + t], v_rows, o[r * V_MATRICES + c]);
        }
}

// Of the magnitude: load_q has turned the sign into q's.
float scale() {
    return abs(params.scale);
}

// What scores are still to be multiplied by when the softmax meets them.
float to_base_2() {
    return MODIFIED ? 1 : scale();
}

// A score of a partial block, by its place among the rows of this subgroup and the keys.
float masked(float score, uint row, uint key) {
    const uint bits = mask_word(gl_SubgroupID * ROW_TILES * MAT_M + row, key / 32);
    if ((bits >> (key % 32) & 1) == 0) return MINUS_INFINITY;
    return any_not_finite_in == block.x && not_finite_in[key] == block.x ? NOT_A_NUMBER : score;
}

// Scaled and to base 2, which plain scores are not yet.
float modified_at(float score, uint row, uint key) {
    score *= scale();
    if (is_extra_tile(block.x)) return score;
    return modified(score, query_token(own_slot(row)),
                    key_token(first_slot(block.x) + key, false));
}

// Weights are rounded to fp16, their sum is not: a mean of values at fp16's maximum comes out above
// it by up to 2^-11, and would be ∞.
vec4 settled(vec4 x) {
    const float most = 65504;
    return mix(x, sign(x) * most,
               bvec4(uvec4(greaterThan(abs(x), vec4(most))) & uvec4(lessThan(abs(x), vec4(65600)))));
}

uvec4 packed(vec4 a, vec4 b) {
    a = settled(a);
    b = settled(b);
    return uvec4(packHalf2x16(a.xy), packHalf2x16(a.zw), packHalf2x16(b.xy), packHalf2x16(b.zw));
}

void unpack(uvec4 vector, out vec4 a, out vec4 b) {
    a = vec4(unpackHalf2x16(vector.x), unpackHalf2x16(vector.y));
    b = vec4(unpackHalf2x16(vector.z), unpackHalf2x16(vector.w));
}

// Through shared memory, a matrix at a time: 8 columns of a row an invocation.
void store_o() {
    const float u = PERTURB ? perturb_data[gl_WorkGroupID.y] : 0;
    const uint scratch = gl_SubgroupID * S_TILE;
    UNROLLED for (uint n = 0; n < ROW_TILES * V_MATRICES; ++n) {
        const uint c = n % V_MATRICES;
        subgroupBarrier();
        STORE_C(o[n], s_tile, scratch, MAT_N);
        subgroupBarrier();
        for (uint at = gl_SubgroupInvocationID; at < MAT_M * MAT_N / 8; at += LANES) {
            const uint row = at / (MAT_N / 8), column = at % (MAT_N / 8) * 8;
            const uint token = query_token(own_slot(n / V_MATRICES * MAT_M + row));
            if (token == NO_TOKEN || c * MAT_N + column >= V_DIM) continue;
            const uint from = scratch + row * MAT_N + column;
            const uint vector = (c * MAT_N + column) / 8;
            vec4 a = vec4(s_tile[from], s_tile[from + 1], s_tile[from + 2], s_tile[from + 3]);
            vec4 b = vec4(s_tile[from + 4], s_tile[from + 5], s_tile[from + 6], s_tile[from + 7]);
            if (PERTURB && u != 0) {
                vec4 va, vb;
                unpack(v_data[(kv_head * params.kv_len + token) * (V_DIM / 8) + vector], va, vb);
                a = u == 1 ? va : mix(a, va, u);
                b = u == 1 ? vb : mix(b, vb, u);
            }
            o_data[(query_head() * params.q_len + token) * (V_DIM / 8) + vector] = packed(a, b);
        }
    }
}

void finish() {
    end_softmax();
    if (VALUES) store_o();
}
