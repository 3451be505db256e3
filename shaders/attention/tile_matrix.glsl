// The tile verbs on matrix units, what khr and nv2 share. A subgroup owns MAT_M query slots: its q
// and o are matrices in registers. K and V of a block are staged in shared memory by the whole
// workgroup; while it computes, each invocation already holds its part of the next block in
// registers (10 to 20 % on an H200). The softmax is the path's own: begin_softmax, mask_scores,
// modify_scores, softmax_step (which leaves the weights in `weights` and scales o), end_softmax.
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
// Block in which a key's value was found not to be finite: see clean().
shared uint not_finite_in[BC];
shared uint any_not_finite_in;

MatrixA q_rows[Q_COLUMNS / MAT_K];
MatrixC s[BC / MAT_N];
MatrixA weights[BC / MAT_K];
MatrixC o[V_COLUMNS / MAT_N];
uvec4 k_next[K_LOADS];
uvec4 v_next[V_LOADS];
uint kv_head;

void begin_softmax();
void end_softmax();  // o becomes the result; writes the LSE

uint own_slot(uint row) {
    return gl_WorkGroupID.x * BR + gl_SubgroupID * MAT_M + row;
}

void fetch(uint block) {
    const uint key_tile = block_key_tile(block);
    const bool extra = is_extra_tile(key_tile);
    const uint first = first_slot(key_tile), len = extra ? params.extra_len : params.kv_len;
    UNROLLED for (uint n = 0; n < K_LOADS; ++n) {
        const uint at = n * WORKGROUP + gl_LocalInvocationIndex;
        const uint row = at / Q_VECTORS, column = at % Q_VECTORS;
        k_next[n] = uvec4(0);
        if (row >= BC || column >= HEAD_DIM / 8) continue;
        const uint token = key_token(first + row, extra);
        if (token == NO_TOKEN) continue;
        const uint from = (kv_head * len + token) * (HEAD_DIM / 8) + column;
        k_next[n] = EXTRA && extra ? k_extra_data[from] : k_data[from];
    }
    if (!VALUES) return;
    UNROLLED for (uint n = 0; n < V_LOADS; ++n) {
        const uint at = n * WORKGROUP + gl_LocalInvocationIndex;
        const uint row = at / V_VECTORS, column = at % V_VECTORS;
        v_next[n] = uvec4(0);
        if (row >= BC || column >= V_DIM / 8) continue;
        const uint token = key_token(first + row, extra);
        if (token == NO_TOKEN) continue;
        const uint from = (kv_head * len + token) * (V_DIM / 8) + column;
        v_next[n] = EXTRA && extra ? v_extra_data[from] : v_data[from];
    }
}

// In a partial block a row may not see a key, and 0 · ∞ is NaN: values that are not finite become 0
// there, and a row that does see one gets NaN by its score.
uvec4 clean(uvec4 vector, uint row, uint block) {
    const uvec4 low = vector & 0x7c00, high = vector & 0x7c000000;
    const bvec4 bad_low = equal(low, uvec4(0x7c00)), bad_high = equal(high, uvec4(0x7c000000));
    if (!any(bad_low) && !any(bad_high)) return vector;
    not_finite_in[row] = block;
    any_not_finite_in = block;
    return vector & mix(uvec4(0xffff), uvec4(0), bad_low) |
           vector & mix(uvec4(0xffff0000), uvec4(0), bad_high);
}

void stage(uint block) {
    const bool careful = block_mask(block) != FULL_BLOCK;
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
                careful ? clean(v_next[n], row, block) : v_next[n];
    }
}

// All rows of q pass through the tile of K and V, as many at a time as fit.
void load_q() {
    const uint rows_at_once = min(2 * BC, BR) / MAT_M * MAT_M;
    [[dont_unroll]] for (uint first = 0; first < BR; first += rows_at_once) {
        barrier();
        for (uint at = gl_LocalInvocationIndex; at < rows_at_once * Q_VECTORS; at += WORKGROUP) {
            const uint row = at / Q_VECTORS, column = at % Q_VECTORS;
            const uint slot = gl_WorkGroupID.x * BR + first + row;
            const uint token = first + row < BR ? query_token(slot) : NO_TOKEN;
            uvec4 vector = uvec4(0);
            if (token != NO_TOKEN && column < HEAD_DIM / 8)
                vector =
                    q_data[(query_head() * params.q_len + token) * (HEAD_DIM / 8) + column];
            kv_tile[row * STRIDE + column] = vector;
        }
        barrier();
        const uint own = gl_SubgroupID * MAT_M;
        if (own >= first && own < first + rows_at_once)
            UNROLLED for (uint c = 0; c < Q_COLUMNS / MAT_K; ++c)
                LOAD_A(q_rows[c], kv_tile, (own - first) * STRIDE + c * MAT_K / 8, STRIDE);
    }
}

void begin() {
    kv_head = key_head();
    any_not_finite_in = NO_TOKEN;
    for (uint key = gl_LocalInvocationIndex; key < BC; key += WORKGROUP)
        not_finite_in[key] = NO_TOKEN;
    if (block_begin < block_end) fetch(block_begin);
    load_q();
    if (VALUES) UNROLLED for (uint c = 0; c < V_COLUMNS / MAT_N; ++c) CLEAR(o[c]);
    begin_softmax();
}

void scores(uint block) {
    barrier();  // all are done with the tile of the block before
    stage(block);
    barrier();
    if (block + 1 < block_end) fetch(block + 1);
    UNROLLED for (uint t = 0; t < BC / MAT_N; ++t) {
        CLEAR(s[t]);
        UNROLLED for (uint c = 0; c < Q_COLUMNS / MAT_K; ++c) {
            MatrixB k_columns;
            LOAD_B_TRANSPOSED(k_columns, kv_tile, t * MAT_N * STRIDE + c * MAT_K / 8, STRIDE);
            s[t] = multiply_add(q_rows[c], k_columns, s[t]);
        }
        SCALE(s[t], params.scale);
    }
}

void accumulate(uint block) {
    UNROLLED for (uint t = 0; t < BC / MAT_K; ++t)
        UNROLLED for (uint c = 0; c < V_COLUMNS / MAT_N; ++c) {
            MatrixB v_rows;
            LOAD_B(v_rows, kv_tile, V_AT + t * MAT_K * STRIDE + c * MAT_N / 8, STRIDE);
            o[c] = multiply_add(weights[t], v_rows, o[c]);
        }
}

// A score of a partial block, by its place among the rows of this subgroup and the keys.
float masked(float score, uint row, uint key, uint block) {
    const uint bits = mask_word(block_mask(block), gl_SubgroupID * MAT_M + row, key / 32);
    if ((bits >> (key % 32) & 1) == 0) return MASKED;
    return any_not_finite_in == block && not_finite_in[key] == block ? NOT_A_NUMBER : score;
}

float modified_at(float score, uint row, uint key, uint block) {
    const uint key_tile = block_key_tile(block);
    if (is_extra_tile(key_tile)) return score;
    return modified(score, query_token(own_slot(row)),
                    key_token(first_slot(key_tile) + key, false));
}

uvec4 packed(vec4 a, vec4 b) {
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
    UNROLLED for (uint c = 0; c < V_COLUMNS / MAT_N; ++c) {
        subgroupBarrier();
        STORE_C(o[c], s_tile, scratch, MAT_N);
        subgroupBarrier();
        for (uint at = gl_SubgroupInvocationID; at < MAT_M * MAT_N / 8; at += LANES) {
            const uint row = at / (MAT_N / 8), column = at % (MAT_N / 8) * 8;
            const uint token = query_token(own_slot(row));
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
