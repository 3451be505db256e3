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

const uint V_COLUMNS = (V_DIM + MAT_N - 1) / MAT_N * MAT_N;
const uint V_VECTORS = V_COLUMNS / 8;
const uint V_LOADS = (BC * V_VECTORS + WORKGROUP - 1) / WORKGROUP;

shared float s_tile[SUBGROUPS * S_TILE];  // each subgroup's own
// Key tile in which a key's value was found not to be finite: see clean().
shared uint not_finite_in[BC];
shared uint any_not_finite_in;

const uint V_MATRICES = V_COLUMNS / MAT_N;
const uint S_MATRICES = BC / MAT_N;
const uint W_MATRICES = BC / MAT_K;

MatrixC s[ROW_TILES * S_MATRICES];
MatrixA weights[ROW_TILES * W_MATRICES];
MatrixC o[ROW_TILES * V_MATRICES];
uvec4 v_next[V_LOADS];
uint kv_head;

void begin_softmax();
void fetch_masks();
void end_softmax();  // o becomes the result; writes the LSE

uint own_slot(uint row) {
    return own_tile() * BR + gl_SubgroupID * ROW_TILES * MAT_M + row;
}

// Without a branch, which costs a move of every vector that it leaves alone (25 % on an H200): what
// has no token takes the last one's row, since masks keep it out of any sum.
#define FETCH(vectors_next, loads, vectors, dim, data, pitch, extra_data, extra_pitch)    \
    UNROLLED for (uint n = 0; n < loads; ++n) {                                           \
        const uint at = n * WORKGROUP + gl_LocalInvocationIndex;                          \
        const uint row = BC * vectors % WORKGROUP == 0 ? at / vectors                     \
                                                       : min(at / vectors, BC - 1);       \
        const bool padded = vectors != dim / 8;                                           \
        const uint column = padded ? min(at % vectors, dim / 8 - 1) : at % vectors;       \
        const uint token = min(key_slot(first + row, extra), len - 1);                    \
        const uint from = row_start(kv_head, params.n_kv_heads, token, len, dim / 8,      \
                                    EXTRA && extra ? extra_pitch : pitch) + column;       \
        vectors_next[n] = EXTRA && extra ? extra_data[from] : data[from];                 \
        if (padded && at % vectors >= dim / 8) vectors_next[n] = uvec4(0);                \
    }

// The verbs that know how q and k are stored: fetch_keys, stage_keys, load_q, multiply_scores,
// scale, logit, lse_of, is_finite_query; and the tile of K and V in shared memory.
#ifdef INT8_SCORES
#include "scores_int8.glsl"
#else
#include "scores_f16.glsl"
#endif

void fetch(uint key_tile) {
    const bool extra = is_extra_tile(key_tile);
    const uint first = first_slot(key_tile), len = extra ? params.extra_len : params.kv_len;
    fetch_keys(key_tile, extra, first, len);
    if (VALUES)
        FETCH(v_next, V_LOADS, V_VECTORS, V_DIM, v_data, params.v_pitch, v_extra_data,
              params.v_extra_pitch)
}

// In a partial block a row may not see a key, and 0 · ∞ is NaN: values that are not finite become 0
// there, and a row that does see one gets NaN by its score.
uvec4 clean(uvec4 vector, uint row) {
    bvec4 low, high;
    not_finite(vector, low, high);
    if (!any(low) && !any(high)) return vector;
    not_finite_in[row] = block.x;
    any_not_finite_in = block.x;
    return finite_part(vector, low, high);
}

void stage(bool partial) {
    stage_keys(partial);
    if (!VALUES) return;
    UNROLLED for (uint n = 0; n < V_LOADS; ++n) {
        const uint at = n * WORKGROUP + gl_LocalInvocationIndex;
        const uint row = at / V_VECTORS, column = at % V_VECTORS;
        if (row < BC)
            kv_tile[V_AT + row * V_STRIDE + column] =
                partial ? clean(v_next[n], row) : v_next[n];
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
    multiply_scores();
}

void accumulate() {
    UNROLLED for (uint t = 0; t < W_MATRICES; ++t)
        UNROLLED for (uint c = 0; c < V_MATRICES; ++c) {
            MatrixB v_rows;
            LOAD_B(v_rows, kv_tile, V_AT + t * MAT_K * V_STRIDE + c * MAT_N / 8, V_STRIDE);
            UNROLLED for (uint r = 0; r < ROW_TILES; ++r)
                o[r * V_MATRICES + c] =
                    multiply_add(weights[r * W_MATRICES + t], v_rows, o[r * V_MATRICES + c]);
        }
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
    score = logit(score, row);
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

// Through shared memory, a matrix at a time: 8 columns of a row an invocation.
void store_o() {
    const float u = PERTURB ? perturb_data[own_head()] : 0;
    const uint scratch = gl_SubgroupID * S_TILE;
    UNROLLED for (uint n = 0; n < ROW_TILES * V_MATRICES; ++n) {
        const uint c = n % V_MATRICES;
        subgroupBarrier();
        STORE_C(o[n], s_tile, scratch, MAT_N);
        subgroupBarrier();
        for (uint at = gl_SubgroupInvocationID; at < MAT_M * MAT_N / 8; at += LANES) {
            const uint row = at / (MAT_N / 8), column = at % (MAT_N / 8) * 8;
            const uint own_row = n / V_MATRICES * MAT_M + row;
            const uint token = query_token(own_slot(own_row));
            if (token == NO_TOKEN || c * MAT_N + column >= V_DIM) continue;
            const uint from = scratch + row * MAT_N + column;
            const uint vector = (c * MAT_N + column) / 8;
            vec4 a = vec4(s_tile[from], s_tile[from + 1], s_tile[from + 2], s_tile[from + 3]);
            vec4 b = vec4(s_tile[from + 4], s_tile[from + 5], s_tile[from + 6], s_tile[from + 7]);
            if (!is_finite_query(own_row)) a = b = vec4(NOT_A_NUMBER);
            if (PERTURB && u != 0) {
                vec4 va, vb;
                unpack(v_data[row_start(kv_head, params.n_kv_heads, token, params.kv_len, V_DIM / 8,
                                        params.v_pitch) +
                              vector],
                       va, vb);
                a = u == 1 ? va : mix(a, va, u);
                b = u == 1 ? vb : mix(b, vb, u);
            }
            o_data[output_row(token, V_DIM / 8, TOKENS_FIRST) + vector] = packed(a, b);
        }
    }
}

void finish() {
    end_softmax();
    if (VALUES) store_o();
}
