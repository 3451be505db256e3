// The tile verbs in plain registers: an invocation owns ROWS query rows of all HEAD_DIM columns;
// nothing is shared and there is no barrier. Columns are counted in vec4, D4 a row.
//
// On GPUs (UNROLL) every loop over columns is unrolled, so that q and o live in registers, and all
// invocations read the same element of K or V: one load, broadcast.
// Mesa's llvmpipe runs a load as a loop over the lanes of a vector, whatever the address, at about
// 300 instructions a vec4, and a pipeline of many loads takes seconds to compile. So there
// (HAND_ROUND) every lane loads something else, two vec4 of LANES / 2 keys at once, and hands it
// round; q and o are arrays indexed in a loop. 4 heads × 256 tokens × 64, one core: 2.5 GFLOP/s
// without, 11 GFLOP/s with.

const uint D4 = HEAD_DIM / 4;
const uint LOADS = HAND_ROUND ? 2 * BC / LANES : 1;  // a pair of columns of a block

vec4 q[ROWS * D4];
vec4 o[ROWS * D4];
float s[ROWS * BC];
float row_max[ROWS];
float row_sum[ROWS];
uint kv_head;
bool extra;       // whether the block is one of extra keys
uint key_at[BC];  // its rows, or what this lane loads of them
float correction[ROWS];  // of what was summed before the newest maximum

uint query_row(uint r) {
    return gl_WorkGroupID.x * BR + r * LANES + gl_LocalInvocationIndex;
}

// Start of a row in vec4. Rows beyond the end read the last one: their results are not stored, their
// keys masked.
uint row_at(uint head, uint row, uint len) {
    return (head * len + min(row, len - 1)) * D4;
}

// Outside the loops over columns: compilers for CPUs do not hoist it, and it divides.
void find_keys(uint key_tile) {
    extra = EXTRA && key_tile >= params.key_tiles;
    const uint first = (extra ? key_tile - params.key_tiles : key_tile) * BC;
    const uint len = extra ? params.extra_len : params.kv_len;
    if (HAND_ROUND) {
        [[unroll]] for (uint g = 0; g < LOADS; ++g)
            key_at[g] = row_at(kv_head, first + g * LANES / 2 + gl_SubgroupInvocationID / 2, len) +
                        gl_SubgroupInvocationID % 2;
    } else {
        [[unroll]] for (uint j = 0; j < BC; ++j) key_at[j] = row_at(kv_head, first + j, len);
    }
}

// Runs `step` for every second column c.
#define EACH_COLUMN_PAIR(step)                                 \
    if (UNROLL) {                                              \
        [[unroll]] for (uint c = 0; c < D4; c += 2) step;      \
    } else {                                                   \
        [[dont_unroll]] for (uint c = 0; c < D4; c += 2) step; \
    }

void begin_columns(uint c) {
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        const uint at = row_at(query_head(), query_row(r), params.q_len);
        [[unroll]] for (uint i = c; i < c + 2; ++i) {
            q[r * D4 + i] = load4(q_data[at + i]) * params.scale;
            o[r * D4 + i] = vec4(0);
        }
    }
}

void begin() {
    kv_head = key_head();
    EACH_COLUMN_PAIR(begin_columns(c))
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        row_max[r] = MASKED;
        row_sum[r] = 0;
    }
}

vec4 load_k(bool from_extra, uint at) {
    return from_extra ? load4(k_extra_data[at]) : load4(k_data[at]);
}

vec4 load_v(bool from_extra, uint at) {
    return from_extra ? load4(v_extra_data[at]) : load4(v_data[at]);
}

// Column h of the pair of key j, from what all lanes loaded.
vec4 handed_round(vec4 own[LOADS], uint j, uint h) {
    return subgroupBroadcast(own[j / (LANES / 2)], j % (LANES / 2) * 2 + h);
}

void scores_columns(bool from_extra, uint c) {
    vec4 x[ROWS][2];
    [[unroll]] for (uint r = 0; r < ROWS; ++r)
        [[unroll]] for (uint h = 0; h < 2; ++h) x[r][h] = q[r * D4 + c + h];
    vec4 own[LOADS];
    if (HAND_ROUND)
        [[unroll]] for (uint n = 0; n < LOADS; ++n) own[n] = load_k(from_extra, key_at[n] + c);
    [[unroll]] for (uint j = 0; j < BC; ++j) {
        [[unroll]] for (uint h = 0; h < 2; ++h) {
            const vec4 k =
                HAND_ROUND ? handed_round(own, j, h) : load_k(from_extra, key_at[j] + c + h);
            [[unroll]] for (uint r = 0; r < ROWS; ++r) {
                float sum = s[r * BC + j];
                [[unroll]] for (uint i = 0; i < 4; ++i) sum = fma(x[r][h][i], k[i], sum);
                s[r * BC + j] = sum;
            }
        }
    }
}

void scores(uint key_tile) {
    [[unroll]] for (uint i = 0; i < ROWS * BC; ++i) s[i] = 0;
    find_keys(key_tile);
    if (EXTRA && extra)
        EACH_COLUMN_PAIR(scores_columns(true, c))
    else
        EACH_COLUMN_PAIR(scores_columns(false, c))
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

void accumulate_columns(bool from_extra, uint c) {
    vec4 sum[ROWS][2];
    [[unroll]] for (uint r = 0; r < ROWS; ++r)
        [[unroll]] for (uint h = 0; h < 2; ++h) sum[r][h] = o[r * D4 + c + h] * correction[r];
    vec4 own[LOADS];
    if (HAND_ROUND)
        [[unroll]] for (uint n = 0; n < LOADS; ++n) own[n] = load_v(from_extra, key_at[n] + c);
    [[unroll]] for (uint j = 0; j < BC; ++j) {
        [[unroll]] for (uint h = 0; h < 2; ++h) {
            const vec4 v =
                HAND_ROUND ? handed_round(own, j, h) : load_v(from_extra, key_at[j] + c + h);
            [[unroll]] for (uint r = 0; r < ROWS; ++r)
                sum[r][h] = fma(vec4(s[r * BC + j]), v, sum[r][h]);
        }
    }
    [[unroll]] for (uint r = 0; r < ROWS; ++r)
        [[unroll]] for (uint h = 0; h < 2; ++h) o[r * D4 + c + h] = sum[r][h];
}

void accumulate(uint key_tile) {
    if (EXTRA && extra)
        EACH_COLUMN_PAIR(accumulate_columns(true, c))
    else
        EACH_COLUMN_PAIR(accumulate_columns(false, c))
}

void finish_columns(uint c) {
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        if (query_row(r) >= params.q_len) continue;
        const float inverse = row_sum[r] > 0 ? 1 / row_sum[r] : 0;
        const uint at = row_at(query_head(), query_row(r), params.q_len);
        [[unroll]] for (uint i = c; i < c + 2; ++i)
            o_data[at + i] = store4(o[r * D4 + i] * inverse);
    }
}

void finish() {
    EACH_COLUMN_PAIR(finish_columns(c))
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        if (params.write_lse == 0 || query_row(r) >= params.q_len) continue;
        lse_data[query_head() * params.q_len + query_row(r)] =
            row_sum[r] > 0 ? (row_max[r] + log2(row_sum[r])) * LN2 : uintBitsToFloat(0xff800000);
    }
}
