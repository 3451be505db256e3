// Scores as products of int8, whose sums are exact: q and k as quantize.comp leaves them, by slots
// and padded to whole tiles and matrices, so that nothing is looked up or cut off here. A subgroup's
// queries have one scale and so has a block of keys: a score in work is to be multiplied by a single
// number. Every score of a query lacks the same q·mean, which weights do not notice.

const uint Q_COLUMNS = (HEAD_DIM + SCORE_K - 1) / SCORE_K * SCORE_K;
const uint Q_VECTORS = Q_COLUMNS / 16;
const uint K_STRIDE = Q_VECTORS | 1;  // of shared rows, in vectors; odd: no bank conflicts
const uint V_STRIDE = V_COLUMNS / 8 + 1;
const uint K_LOADS = (BC * Q_VECTORS + WORKGROUP - 1) / WORKGROUP;  // of an invocation, a block
const uint V_AT = BC * K_STRIDE;
const uint Q_MATRICES = Q_COLUMNS / SCORE_K;

layout(set = 0, binding = 3) readonly buffer KScales { float k_scale_data[]; };
// Of each slot: scale · log2(e) · q·mean, and the scale of its block times |scale| · log2(e).
layout(set = 0, binding = 15) readonly buffer QSlots { vec2 q_slot_data[]; };

shared uvec4 kv_tile[BC * (K_STRIDE + V_STRIDE)];
MatrixA8 q_rows[ROW_TILES * Q_MATRICES];
uvec4 k_next[K_LOADS];
float k_scale_next;
float q_scale;
float block_scale;

// Of a row of this subgroup.
uint q_slot(uint row) {
    return query_head() * gl_NumWorkGroups.x * BR + own_slot(row);
}

void fetch_keys(uint key_tile, bool extra, uint first, uint len) {
    // One copy of the keys for every order of them.
    const uint head = params.list_words == 0 ? key_head() : query_head();
    const uint tile = head * params.k_tiles + key_tile;
    UNROLLED for (uint n = 0; n < K_LOADS; ++n) {
        const uint at = n * WORKGROUP + gl_LocalInvocationIndex;
        const uint in_tile =
            BC * Q_VECTORS % WORKGROUP == 0 ? at : min(at, BC * Q_VECTORS - 1);
        k_next[n] = k_data[tile * BC * Q_VECTORS + in_tile];
    }
    k_scale_next = k_scale_data[tile];
}

// −128 says that a key was not finite (quantize.comp). Of those in full blocks the scale tells: all
// rows see them.
bool is_finite_key(uvec4 vector) {
    const uvec4 x = vector ^ 0x80808080;
    return all(equal((x - 0x01010101) & ~x & 0x80808080, uvec4(0)));
}

void stage_keys(bool partial) {
    UNROLLED for (uint n = 0; n < K_LOADS; ++n) {
        const uint at = n * WORKGROUP + gl_LocalInvocationIndex;
        const uint row = at / Q_VECTORS, column = at % Q_VECTORS;
        if (row >= BC) continue;
        kv_tile[row * K_STRIDE + column] = k_next[n];
        if (partial && !is_finite_key(k_next[n])) {
            not_finite_in[row] = block.x;
            any_not_finite_in = block.x;
        }
    }
    block_scale = q_scale * (!partial && k_scale_next < 0 ? NOT_A_NUMBER : abs(k_scale_next));
}

void load_q() {
    const uint first = q_slot(0);
    UNROLLED for (uint r = 0; r < ROW_TILES; ++r)
        UNROLLED for (uint c = 0; c < Q_MATRICES; ++c)
            LOAD_A8(q_rows[r * Q_MATRICES + c], q_data,
                    (first + r * MAT_M) * Q_VECTORS + c * SCORE_K / 16, Q_VECTORS);
    q_scale = q_slot_data[first].y;
}

void multiply_scores() {
    UNROLLED for (uint t = 0; t < S_MATRICES; ++t) {
        MatrixC32 sums[ROW_TILES];
        UNROLLED for (uint r = 0; r < ROW_TILES; ++r) CLEAR32(sums[r]);
        UNROLLED for (uint c = 0; c < Q_MATRICES; ++c) {
            MatrixB8 k_columns;
            LOAD_B8_TRANSPOSED(k_columns, kv_tile, t * MAT_N * K_STRIDE + c * SCORE_K / 16,
                               K_STRIDE);
            UNROLLED for (uint r = 0; r < ROW_TILES; ++r)
                sums[r] = multiply_add(q_rows[r * Q_MATRICES + c], k_columns, sums[r]);
        }
        UNROLLED for (uint r = 0; r < ROW_TILES; ++r) TO_FLOAT(s[r * S_MATRICES + t], sums[r]);
    }
}

float scale() {
    return block_scale;
}

// With what all scores of the row lack: a multiplier of single logits would notice.
float logit(float score, uint row) {
    return score * scale() + q_slot_data[q_slot(row)].x;
}

float lse_of(float exponent, uint row) {
    return (MODIFIED ? exponent : exponent + q_slot_data[q_slot(row)].x) * LN2;
}

bool is_finite_query(uint row) {
    return (floatBitsToUint(q_slot_data[q_slot(row)].x) & 0x7f800000) != 0x7f800000;
}
