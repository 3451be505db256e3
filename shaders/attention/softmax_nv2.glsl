// The softmax of the nv2 path: row reductions, functions of single elements and conversions of
// VK_NV_cooperative_matrix2, all at subgroup scope. The running maximum (scaled, to base 2) is a
// matrix whose columns are alike; the running sum is kept by columns and added up once, at the end.
// Of elements that an invocation holds of the same row only the first is kept: ROW_OF.

MatrixC row_max[ROW_TILES];
MatrixC row_sum[ROW_TILES];

#ifndef EMULATED

float larger(const in float a, const in float b) { return max(a, b); }
float added(const in float a, const in float b) { return a + b; }
#define ROWS_LARGEST(c) coopMatReduceNV(c, c, gl_CooperativeMatrixReduceRowNV, larger)
#define ROWS_SUM(c) coopMatReduceNV(c, c, gl_CooperativeMatrixReduceRowNV, added)
#define TO_WEIGHTS(a, c) a = MatrixA(c)

float masked_element(const in uint row, const in uint column, const in float score,
                     const in uint first_row, const in uint first_key) {
    return masked(score, first_row + row, first_key + column);
}

float modified_element(const in uint row, const in uint column, const in float score,
                       const in uint first_row, const in uint first_key) {
    return modified_at(score, first_row + row, first_key + column);
}

#define EACH_ELEMENT(c, function, first_row, first_key) \
    coopMatPerElementNV(c, c, function, first_row, first_key)

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
#define ROWS_LARGEST(c) EACH_ROW(c, MINUS_INFINITY, larger, subgroupMax)
#define ROWS_SUM(c) EACH_ROW(c, 0, added, subgroupAdd)
#define TO_WEIGHTS(a, c) \
    FOR_ELEMENTS a.e[i] = unpackHalf2x16(packHalf2x16(vec2(c.e[i], 0))).x
#define EACH_ELEMENT(c, function, first_row, first_key) \
    FOR_ELEMENTS c.e[i] = function(c.e[i], (first_row) + NUMBER / 16, (first_key) + NUMBER % 16)
#define masked_element masked
#define modified_element modified_at

#endif

#define EACH_SCORE_MATRIX(function)                        \
    UNROLLED for (uint r = 0; r < ROW_TILES; ++r)          \
        UNROLLED for (uint t = 0; t < S_MATRICES; ++t)     \
            EACH_ELEMENT(s[r * S_MATRICES + t], function, r * MAT_M, t * MAT_N)

void begin_softmax() {
    UNROLLED for (uint r = 0; r < ROW_TILES; ++r)
        UNROLLED for (uint i = 0; i < SIZE(row_max[r]); ++i) {
            ELEMENT(row_max[r], i) = LEAST;
            ELEMENT(row_sum[r], i) = 0;
        }
}

void modify_scores() {
    EACH_SCORE_MATRIX(modified_element);
}

#ifdef EMULATED
void fetch_masks() {}
void mask_scores() {
    EACH_SCORE_MATRIX(masked_element);
}
#else

// Where places are known, an invocation holds the words of its rows, shifted so that bit n is the
// key n columns right of its first element's, and tests bits that the compiler knows.
const bool PLACES_KNOWN = COLUMNS_OF_ELEMENTS != 0xffffffff;
const uint MASK_WORDS = (BC + 31) / 32;
uint mask_words[ROW_TILES * 8 * MASK_WORDS];

float row_of_element(const in uint row, const in uint column, const in float old) {
    return float(row);
}

float column_of_element(const in uint row, const in uint column, const in float old) {
    return float(column);
}

// Before the products, which cover the time that memory takes.
void fetch_masks() {
    if (!PLACES_KNOWN) return;
    MatrixC rows = MatrixC(0), columns = MatrixC(0);
    coopMatPerElementNV(rows, rows, row_of_element);
    coopMatPerElementNV(columns, columns, column_of_element);
    const uint shift = uint(columns[0]);
    UNROLLED for (uint r = 0; r < ROW_TILES; ++r)
        UNROLLED for (uint i = 0; i < SIZE(rows); ++i) {
            if (ROW_OF(i) != i) continue;
            const uint row = (gl_SubgroupID * ROW_TILES + r) * MAT_M + uint(rows[i]);
            UNROLLED for (uint w = 0; w < MASK_WORDS; ++w)
                mask_words[(r * 8 + i) * MASK_WORDS + w] = mask_word(row, w) >> shift;
        }
}

void mask_scores() {
    if (!PLACES_KNOWN || any_not_finite_in == block.x) {
        EACH_SCORE_MATRIX(masked_element);
        return;
    }
    UNROLLED for (uint r = 0; r < ROW_TILES; ++r)
        UNROLLED for (uint t = 0; t < S_MATRICES; ++t)
            UNROLLED for (uint i = 0; i < SIZE(s[0]); ++i) {
                const uint first_key = t * MAT_N;
                const uint word = mask_words[(r * 8 + ROW_OF(i)) * MASK_WORDS + first_key / 32];
                if ((word >> (first_key % 32 + COLUMN_OF(i)) & 1) == 0)
                    ELEMENT(s[r * S_MATRICES + t], i) = MINUS_INFINITY;
            }
}
#endif

void softmax_step() {
    const float factor = to_base_2();
    UNROLLED for (uint r = 0; r < ROW_TILES; ++r) {
        const uint first = r * S_MATRICES;
        MatrixC largest = s[first];
        UNROLLED for (uint t = 1; t < S_MATRICES; ++t)
            UNROLLED for (uint i = 0; i < SIZE(largest); ++i)
                ELEMENT(largest, i) = max(ELEMENT(largest, i), ELEMENT(s[first + t], i));
        ROWS_LARGEST(largest);
        MatrixC correction;
        UNROLLED for (uint i = 0; i < SIZE(largest); ++i) {
            if (ROW_OF(i) != i) continue;
            const float before = ELEMENT(row_max[r], i);
            const float now = max(before, ELEMENT(largest, i) * factor);
            ELEMENT(row_max[r], i) = now;
            ELEMENT(correction, i) = exp2(before - now);
            ELEMENT(row_sum[r], i) *= ELEMENT(correction, i);
        }
        UNROLLED for (uint t = 0; t < S_MATRICES; ++t) {
            UNROLLED for (uint i = 0; i < SIZE(largest); ++i) {
                const float weight = exp2(
                    fma(ELEMENT(s[first + t], i), factor, -ELEMENT(row_max[r], ROW_OF(i))));
                ELEMENT(s[first + t], i) = weight;
                ELEMENT(row_sum[r], ROW_OF(i)) += weight;
            }
            TO_WEIGHTS(weights[r * W_MATRICES + t], s[first + t]);
        }
        if (VALUES)
            UNROLLED for (uint c = 0; c < V_MATRICES; ++c)
                UNROLLED for (uint i = 0; i < SIZE(largest); ++i)
                    ELEMENT(o[r * V_MATRICES + c], i) *= ELEMENT(correction, ROW_OF(i));
    }
}

void write_lse(uint r) {
    MatrixC exponent;
    UNROLLED for (uint i = 0; i < SIZE(exponent); ++i) {
        const float sum = ELEMENT(row_sum[r], i);
        ELEMENT(exponent, i) = sum == 0 ? MINUS_INFINITY : ELEMENT(row_max[r], i) + log2(sum);
    }
    const uint scratch = gl_SubgroupID * S_TILE;
    subgroupBarrier();
    STORE_C(exponent, s_tile, scratch, MAT_N);
    subgroupBarrier();
    for (uint row = gl_SubgroupInvocationID; row < MAT_M; row += LANES) {
        const uint token = query_token(own_slot(r * MAT_M + row));
        if (token != NO_TOKEN)
            lse_data[lse_at(token)] =
                lse_of(s_tile[scratch + row * MAT_N], r * MAT_M + row);
    }
}

void end_softmax() {
    UNROLLED for (uint r = 0; r < ROW_TILES; ++r) {
        UNROLLED for (uint i = 0; i < SIZE(row_sum[r]); ++i) {
            if (ROW_OF(i) != i) ELEMENT(row_sum[r], i) = 0;
            ELEMENT(row_max[r], i) = ELEMENT(row_max[r], ROW_OF(i));
        }
        ROWS_SUM(row_sum[r]);
        if (params.write_lse != 0) write_lse(r);
        UNROLLED for (uint i = 0; i < SIZE(row_sum[r]); ++i) {
            const float sum = ELEMENT(row_sum[r], i);
            ELEMENT(row_sum[r], i) = sum == 0 ? 0 : 1 / sum;
        }
        if (VALUES)
            UNROLLED for (uint c = 0; c < V_MATRICES; ++c)
                MULTIPLY(o[r * V_MATRICES + c], row_sum[r]);
    }
}
