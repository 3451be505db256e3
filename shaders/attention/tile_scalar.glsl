// The tile verbs in plain registers: each invocation owns ROWS query rows of all HEAD_DIM columns,
// nothing is shared and there is no barrier. Addresses of K and V are the same for the whole
// workgroup: one load feeds all lanes (a broadcast on GPUs, a scalar load on Mesa's llvmpipe, where
// a load with an address per lane costs eight). Every loop over registers is unrolled.

const uint D4 = HEAD_DIM / 4;

vec4 q[ROWS * D4];
vec4 o[ROWS * D4];
float s[ROWS * BC];
float row_max[ROWS];
float row_sum[ROWS];
float correction[ROWS];  // of what was summed before the newest maximum

uint query_row(uint r) {
    return gl_WorkGroupID.x * BR + r * LANES + gl_LocalInvocationIndex;
}

// Rows beyond the end read the last one: their results are not stored, their keys masked.
uint row_at(uint head, uint row, uint len) {
    return (head * len + min(row, len - 1)) * D4;
}

vec4 load_k(bool extra, uint row, uint c) {
    if (extra) return load4(k_extra_data[row_at(key_head(), row, params.extra_len) + c]);
    return load4(k_data[row_at(key_head(), row, params.kv_len) + c]);
}

vec4 load_v(bool extra, uint row, uint c) {
    if (extra) return load4(v_extra_data[row_at(key_head(), row, params.extra_len) + c]);
    return load4(v_data[row_at(key_head(), row, params.kv_len) + c]);
}

// Runs `step` for every column c.
#define EACH_COLUMN(step)                                      \
    if (UNROLL) {                                              \
        [[unroll]] for (uint c = 0; c < D4; ++c) step;         \
    } else {                                                   \
        [[dont_unroll]] for (uint c = 0; c < D4; ++c) step;    \
    }

void begin_column(uint c) {
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        const uint at = row_at(query_head(), query_row(r), params.q_len);
        q[r * D4 + c] = load4(q_data[at + c]) * params.scale;
        o[r * D4 + c] = vec4(0);
    }
}

void begin() {
    EACH_COLUMN(begin_column(c))
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        row_max[r] = MASKED;
        row_sum[r] = 0;
    }
}

void scores_column(bool extra, uint tile, uint c) {
    vec4 x[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; ++r) x[r] = q[r * D4 + c];
    [[unroll]] for (uint j = 0; j < BC; ++j) {
        const vec4 k = load_k(extra, tile * BC + j, c);
        [[unroll]] for (uint r = 0; r < ROWS; ++r) {
            float sum = s[r * BC + j];
            [[unroll]] for (uint i = 0; i < 4; ++i) sum = fma(x[r][i], k[i], sum);
            s[r * BC + j] = sum;
        }
    }
}

void scores(uint key_tile) {
    [[unroll]] for (uint i = 0; i < ROWS * BC; ++i) s[i] = 0;
    if (EXTRA && key_tile >= params.key_tiles)
        EACH_COLUMN(scores_column(true, key_tile - params.key_tiles, c))
    else
        EACH_COLUMN(scores_column(false, key_tile, c))
}

void mask_scores(uint mask) {
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        uint bits;
        [[unroll]] for (uint j = 0; j < BC; ++j) {
            if (j % 32 == 0) bits = mask_word(mask, r * LANES + gl_LocalInvocationIndex, j / 32);
            if ((bits >> (j % 32) & 1) == 0) s[r * BC + j] = MASKED;
        }
    }
}

void softmax_step() {
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        float largest = row_max[r];
        [[unroll]] for (uint j = 0; j < BC; ++j) largest = max(largest, s[r * BC + j]);
        correction[r] = exp2(row_max[r] - largest);
        row_max[r] = largest;
        float sum = row_sum[r] * correction[r];
        [[unroll]] for (uint j = 0; j < BC; ++j) {
            // A row without any key so far has largest = MASKED: its weights are 0, not exp2(0).
            const float score = s[r * BC + j];
            const float weight = score == MASKED ? 0 : exp2(score - largest);
            s[r * BC + j] = weight;
            sum += weight;
        }
        row_sum[r] = sum;
    }
}

void accumulate_column(bool extra, uint tile, uint c) {
    vec4 sum[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; ++r) sum[r] = o[r * D4 + c] * correction[r];
    [[unroll]] for (uint j = 0; j < BC; ++j) {
        const vec4 v = load_v(extra, tile * BC + j, c);
        [[unroll]] for (uint r = 0; r < ROWS; ++r) sum[r] = fma(vec4(s[r * BC + j]), v, sum[r]);
    }
    [[unroll]] for (uint r = 0; r < ROWS; ++r) o[r * D4 + c] = sum[r];
}

void accumulate(uint key_tile) {
    if (EXTRA && key_tile >= params.key_tiles)
        EACH_COLUMN(accumulate_column(true, key_tile - params.key_tiles, c))
    else
        EACH_COLUMN(accumulate_column(false, key_tile, c))
}

void finish_column(uint c) {
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        if (query_row(r) >= params.q_len) continue;
        const float inverse = row_sum[r] > 0 ? 1 / row_sum[r] : 0;
        const uint at = row_at(query_head(), query_row(r), params.q_len);
        o_data[at + c] = store4(o[r * D4 + c] * inverse);
    }
}

void finish() {
    EACH_COLUMN(finish_column(c))
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        if (params.write_lse == 0 || query_row(r) >= params.q_len) continue;
        lse_data[query_head() * params.q_len + query_row(r)] =
            row_sum[r] > 0 ? (row_max[r] + log2(row_sum[r])) * LN2 : uintBitsToFloat(0xff800000);
    }
}
