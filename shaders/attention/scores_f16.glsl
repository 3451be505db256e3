// Scores as products of fp16: q and k as they are. All rows of a block lie in shared memory as far
// apart.

const uint Q_COLUMNS = (HEAD_DIM + MAT_K - 1) / MAT_K * MAT_K;
const uint WIDEST = Q_COLUMNS > V_COLUMNS ? Q_COLUMNS : V_COLUMNS;
const uint STRIDE = WIDEST / 8 + 1;  // of shared rows, in vectors; odd: no bank conflicts
const uint V_STRIDE = STRIDE;
const uint Q_VECTORS = Q_COLUMNS / 8;
const uint K_LOADS = (BC * Q_VECTORS + WORKGROUP - 1) / WORKGROUP;  // of an invocation, a block
const uint V_AT = BC * STRIDE;
const uint Q_MATRICES = Q_COLUMNS / MAT_K;

shared uvec4 kv_tile[2 * BC * STRIDE];
MatrixA q_rows[ROW_TILES * Q_MATRICES];
uvec4 k_next[K_LOADS];

void fetch_keys(uint key_tile, bool extra, uint first, uint len) {
    FETCH(k_next, K_LOADS, Q_VECTORS, HEAD_DIM, k_data, params.k_pitch, k_extra_data,
          params.k_extra_pitch)
}

void stage_keys(bool partial) {
    UNROLLED for (uint n = 0; n < K_LOADS; ++n) {
        const uint at = n * WORKGROUP + gl_LocalInvocationIndex;
        const uint row = at / Q_VECTORS, column = at % Q_VECTORS;
        if (row < BC) kv_tile[row * STRIDE + column] = k_next[n];
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
            const uint slot = own_tile() * BR + first + row;
            const uint token = first + row < BR ? query_token(slot) : NO_TOKEN;
            uvec4 vector = uvec4(0);
            if (token != NO_TOKEN && column < HEAD_DIM / 8)
                vector = sign ^ q_data[query_row(token, HEAD_DIM / 8, params.q_pitch) + column];
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

void multiply_scores() {
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

// Of the magnitude: load_q has turned the sign into q's.
float scale() {
    return abs(params.scale);
}

float logit(float score, uint row) {
    return score * scale();
}

float lse_of(float exponent, uint row) {
    return exponent * LN2;
}

bool is_finite_query(uint row) {
    return true;
}
