// The softmax of the nv2 path: row reductions, functions of single elements and conversions of
// VK_NV_cooperative_matrix2, all at subgroup scope. The running maximum is a matrix whose columns
// are alike; the running sum is kept by columns and added up once, at the end.

MatrixC row_max;
MatrixC row_sum;

#ifndef EMULATED

float larger(const in float a, const in float b) { return max(a, b); }
float added(const in float a, const in float b) { return a + b; }
#define ROWS_LARGEST(c) coopMatReduceNV(c, c, gl_CooperativeMatrixReduceRowNV, larger)
#define ROWS_SUM(c) coopMatReduceNV(c, c, gl_CooperativeMatrixReduceRowNV, added)
#define TO_WEIGHTS(a, c) a = MatrixA(c)

float masked_element(const in uint row, const in uint column, const in float score,
                     const in uint first, const in uint block) {
    return masked(score, row, first + column, block);
}

float modified_element(const in uint row, const in uint column, const in float score,
                       const in uint first, const in uint block) {
    return modified_at(score, row, first + column, block);
}

#define EACH_ELEMENT(c, function, first, block) coopMatPerElementNV(c, c, function, first, block)

#else

#define EACH_ROW(c, start, step, reduce)                                  \
    [[dont_unroll]] for (uint row = 0; row < 16; ++row) {                 \
        float x = start;                                                  \
        const uint at = row * 16 / LANES;                                 \
        for (uint n = at; n < at + 16 / LANES; ++n) x = step(x, c.e[n]);  \
        x = reduce(x);                                                    \
        for (uint n = at; n < at + 16 / LANES; ++n) c.e[n] = x;           \
    }
float larger(float a, float b) { return max(a, b); }
float added(float a, float b) { return a + b; }
#define ROWS_LARGEST(c) EACH_ROW(c, MASKED, larger, subgroupMax)
#define ROWS_SUM(c) EACH_ROW(c, 0, added, subgroupAdd)
#define TO_WEIGHTS(a, c) \
    FOR_ELEMENTS a.e[i] = unpackHalf2x16(packHalf2x16(vec2(c.e[i], 0))).x
#define EACH_ELEMENT(c, function, first, block) \
    FOR_ELEMENTS c.e[i] = function(c.e[i], NUMBER / 16, (first) + NUMBER % 16, block)
#define masked_element masked
#define modified_element modified_at

#endif

void begin_softmax() {
    UNROLLED for (uint i = 0; i < SIZE(row_max); ++i) {
        ELEMENT(row_max, i) = MASKED;
        ELEMENT(row_sum, i) = 0;
    }
}

void modify_scores(uint block) {
    UNROLLED for (uint t = 0; t < BC / MAT_N; ++t)
        EACH_ELEMENT(s[t], modified_element, t * MAT_N, block);
}

void mask_scores(uint block) {
    UNROLLED for (uint t = 0; t < BC / MAT_N; ++t)
        EACH_ELEMENT(s[t], masked_element, t * MAT_N, block);
}

void softmax_step(uint block) {
    MatrixC largest = s[0];
    UNROLLED for (uint t = 1; t < BC / MAT_N; ++t)
        UNROLLED for (uint i = 0; i < SIZE(largest); ++i)
            ELEMENT(largest, i) = max(ELEMENT(largest, i), ELEMENT(s[t], i));
    ROWS_LARGEST(largest);
    MatrixC correction;
    UNROLLED for (uint i = 0; i < SIZE(largest); ++i) {
        ELEMENT(largest, i) = max(ELEMENT(largest, i), ELEMENT(row_max, i));
        ELEMENT(correction, i) = exp2(ELEMENT(row_max, i) - ELEMENT(largest, i));
    }
    row_max = largest;
    MULTIPLY(row_sum, correction);
    UNROLLED for (uint t = 0; t < BC / MAT_N; ++t) {
        UNROLLED for (uint i = 0; i < SIZE(largest); ++i) {
            // A row without any key so far has largest = MASKED: its weights are 0, not exp2(0).
            const float score = ELEMENT(s[t], i);
            const float weight = score == MASKED ? 0 : exp2(score - ELEMENT(largest, i));
            ELEMENT(s[t], i) = weight;
            ELEMENT(row_sum, i) += weight;
        }
        TO_WEIGHTS(weights[t], s[t]);
    }
    if (VALUES)
        UNROLLED for (uint c = 0; c < V_COLUMNS / MAT_N; ++c) MULTIPLY(o[c], correction);
}

void end_softmax() {
    ROWS_SUM(row_sum);
    if (params.write_lse != 0) {
        MatrixC lse;
        UNROLLED for (uint i = 0; i < SIZE(lse); ++i) {
            const float sum = ELEMENT(row_sum, i);
            ELEMENT(lse, i) =
                sum == 0 ? MINUS_INFINITY : (ELEMENT(row_max, i) + log2(sum)) * LN2;
        }
        const uint scratch = gl_SubgroupID * S_TILE;
        STORE_C(lse, s_tile, scratch, MAT_N);
        subgroupBarrier();
        for (uint row = gl_SubgroupInvocationID; row < MAT_M; row += LANES) {
            const uint token = query_token(own_slot(row));
            if (token != NO_TOKEN)
                lse_data[query_head() * params.q_len + token] = s_tile[scratch + row * MAT_N];
        }
        subgroupBarrier();
    }
    UNROLLED for (uint i = 0; i < SIZE(row_sum); ++i) {
        const float sum = ELEMENT(row_sum, i);
        ELEMENT(row_sum, i) = sum == 0 ? 0 : 1 / sum;
    }
    if (VALUES)
        UNROLLED for (uint c = 0; c < V_COLUMNS / MAT_N; ++c) MULTIPLY(o[c], row_sum);
}
