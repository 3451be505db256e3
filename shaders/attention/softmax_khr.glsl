// The softmax of the khr path: VK_KHR_cooperative_matrix knows no rows, so scores pass through
// shared memory, where LANES_A_ROW invocations own a row. They leave the weights there in fp16, and
// beside them, once for every column of a matrix of o, what o's row is to be scaled by.

const uint LANES_A_ROW = LANES > MAT_M ? LANES / MAT_M : 1;
const uint PASSES = MAT_M * LANES_A_ROW / LANES;  // rows an invocation
const uint S_STRIDE = S_TILE / MAT_M;             // BC / 2 words of weights and MAT_N of scales fit
const uint SCALES_AT = BC / 2;
const uint PAIRS = BC / 2 / LANES_A_ROW;  // of keys, an invocation and row

float row_max[PASSES];
float row_sum[PASSES];

uint own_row(uint pass) {
    return (pass * LANES + gl_SubgroupInvocationID) / LANES_A_ROW;
}

uint own_key(uint pair) {
    return 2 * (pair * LANES_A_ROW + gl_SubgroupInvocationID % LANES_A_ROW);
}

uint s_at(uint row) {
    return gl_SubgroupID * S_TILE + row * S_STRIDE;
}

// The largest and the sum over the invocations of a row.
float row_largest(float x) {
    UNROLLED for (uint n = 1; n < LANES_A_ROW; n *= 2) x = max(x, subgroupShuffleXor(x, n));
    return x;
}

float row_total(float x) {
    UNROLLED for (uint n = 1; n < LANES_A_ROW; n *= 2) x += subgroupShuffleXor(x, n);
    return x;
}

void begin_softmax() {
    UNROLLED for (uint pass = 0; pass < PASSES; ++pass) {
        row_max[pass] = LEAST;
        row_sum[pass] = 0;
    }
}

// Both are done in softmax_step, where rows and keys are known.
void modify_scores() {}
void mask_scores() {}
void fetch_masks() {}

void scale_o() {
    MatrixC scales;
    LOAD_C(scales, s_tile, s_at(0) + SCALES_AT, S_STRIDE);
    UNROLLED for (uint c = 0; c < V_MATRICES; ++c) MULTIPLY(o[c], scales);
}

void write_scale(uint row, float scale) {
    for (uint column = gl_SubgroupInvocationID % LANES_A_ROW; column < MAT_N;
         column += LANES_A_ROW)
        s_tile[s_at(row) + SCALES_AT + column] = scale;
}

void softmax_step() {
    const bool partial = is_partial();
    const float factor = to_base_2();
    subgroupBarrier();
    UNROLLED for (uint t = 0; t < S_MATRICES; ++t)
        STORE_C(s[t], s_tile, s_at(0) + t * MAT_N, S_STRIDE);
    subgroupBarrier();
    vec2 x[PASSES][PAIRS];
    UNROLLED for (uint pass = 0; pass < PASSES; ++pass) {
        const uint row = own_row(pass);
        float largest = row_max[pass];
        UNROLLED for (uint p = 0; p < PAIRS; ++p) {
            const uint key = own_key(p);
            UNROLLED for (uint h = 0; h < 2; ++h) {
                float score = s_tile[s_at(row) + key + h];
                if (MODIFIED) score = modified_at(score, row, key + h);
                score *= factor;
                if (partial) score = masked(score, row, key + h);
                x[pass][p][h] = score;
                largest = max(largest, score);
            }
        }
        largest = row_largest(largest);
        const float correction = exp2(row_max[pass] - largest);
        row_max[pass] = largest;
        row_sum[pass] *= correction;
        UNROLLED for (uint p = 0; p < PAIRS; ++p) {
            UNROLLED for (uint h = 0; h < 2; ++h) {
                x[pass][p][h] = exp2(x[pass][p][h] - largest);
                row_sum[pass] += x[pass][p][h];
            }
        }
        // Their place is free once all have read their scores.
        subgroupBarrier();
        write_scale(row, correction);
        UNROLLED for (uint p = 0; p < PAIRS; ++p)
            s_tile[s_at(row) + own_key(p) / 2] = uintBitsToFloat(packHalf2x16(x[pass][p]));
    }
    subgroupBarrier();
    UNROLLED for (uint t = 0; t < W_MATRICES; ++t)
        LOAD_A(weights[t], s_tile, s_at(0) + t * MAT_K / 2, S_STRIDE);
    if (VALUES) scale_o();
}

void end_softmax() {
    subgroupBarrier();
    UNROLLED for (uint pass = 0; pass < PASSES; ++pass) {
        const uint row = own_row(pass), token = query_token(own_slot(row));
        const float sum = row_total(row_sum[pass]);
        write_scale(row, sum == 0 ? 0 : 1 / sum);
        if (params.write_lse != 0 && token != NO_TOKEN &&
            gl_SubgroupInvocationID % LANES_A_ROW == 0)
            lse_data[lse_at(token)] =
                sum == 0 ? MINUS_INFINITY : lse_of(row_max[pass] + log2(sum), row);
    }
    subgroupBarrier();
    if (VALUES) scale_o();
    subgroupBarrier();
}
