// The tile verbs in plain registers: an invocation owns ROWS query rows of all HEAD_DIM columns;
// nothing is shared and there is no barrier. Columns are counted in vec4, D4 a row.
//
// On GPUs (UNROLL) every loop over columns is unrolled, so that q and o live in registers, the loop
// over keys is not (compilation took 6 s at head_dim 128 when it was), and all invocations read the
// same element of K or V: one load, broadcast.
// Mesa's llvmpipe runs a load as a loop over the lanes of a vector, whatever the address, at about
// 300 instructions a vec4, and a pipeline of many loads takes seconds to compile. So there
// (HAND_ROUND) every lane loads something else, two vec4 of LANES / 2 keys at once, and hands it
// round; q and o are arrays indexed in a loop. 4 heads × 256 tokens × 64, one core: 2.5 GFLOP/s
// without, 11 GFLOP/s with.

const uint D4 = HEAD_DIM / 4;
const uint VD4 = V_DIM / 4;
const uint LOADS = HAND_ROUND ? 2 * BC / LANES : 1;  // a pair of columns of a block

vec4 q[ROWS * D4];
vec4 o[ROWS * VD4];
float s[ROWS * BC];
float row_max[ROWS];
float row_sum[ROWS];
uint query_at[ROWS];  // token of a row
uint kv_head;
bool extra;            // whether the block is one of extra keys
uint key_at[BC];       // rows of the block's keys, or what this lane loads of them
float correction[ROWS];  // of what was summed before the newest maximum
bool careful;          // a partial block: unseen values may be anything
uint not_finite;       // of a careful block: keys (HAND_ROUND: this lane's loads) with such a value

// Slots without a token read the last one: their results are not stored, their keys masked.
uint token_below(uint token, uint len) { return min(token, len - 1); }

// Where the row of the block's key j starts, in k or in v.
uint key_row(uint j, uint vectors, bool of_v) {
    const uint token = key_token(first_slot(block.x) + j, extra);
    const uint len = extra ? params.extra_len : params.kv_len;
    const uint pitch = of_v ? (extra ? params.v_extra_pitch : params.v_pitch)
                            : (extra ? params.k_extra_pitch : params.k_pitch);
    return row_start(kv_head, params.n_kv_heads, token_below(token, len), len, vectors, pitch);
}

// Outside the loops over columns: compilers for CPUs do not hoist it, and it divides.
void find_keys(uint vectors, bool of_v) {
    [[unroll]] for (uint n = 0; n < (HAND_ROUND ? LOADS : BC); ++n)
        key_at[n] = HAND_ROUND ? key_row(n * LANES / 2 + gl_SubgroupInvocationID / 2, vectors, of_v) +
                                     gl_SubgroupInvocationID % 2
                               : key_row(n, vectors, of_v);
}

// Runs `step` for every second of n columns c.
#define EACH_COLUMN_PAIR(n, step)                             \
    if (UNROLL) {                                             \
        [[unroll]] for (uint c = 0; c < n; c += 2) step;      \
    } else {                                                  \
        [[dont_unroll]] for (uint c = 0; c < n; c += 2) step; \
    }

void begin_columns(uint c) {
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        const uint at = query_row(token_below(query_at[r], params.q_len), D4, params.q_pitch);
        [[unroll]] for (uint i = c; i < c + 2; ++i)
            q[r * D4 + i] = load4(q_data[at + i]) * params.scale;
    }
}

void clear_columns(uint c) {
    [[unroll]] for (uint r = 0; r < ROWS; ++r)
        [[unroll]] for (uint i = c; i < c + 2; ++i) o[r * VD4 + i] = vec4(0);
}

void begin(uint blocks) {
    kv_head = key_head();
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        query_at[r] =
            query_token(own_tile() * BR + r * LANES + gl_LocalInvocationIndex);
        row_max[r] = LEAST;
        row_sum[r] = 0;
    }
    EACH_COLUMN_PAIR(D4, begin_columns(c))
    if (VALUES) EACH_COLUMN_PAIR(VD4, clear_columns(c))
}

vec4 load_k(bool from_extra, uint at) {
    return from_extra ? load4(k_extra_data[at]) : load4(k_data[at]);
}

// An unseen key has weight 0, but 0 · ∞ is NaN: such values become 0 and are remembered, since a
// row that does see them must get NaN.
vec4 load_v(bool from_extra, uint at, uint bit) {
    vec4 v = from_extra ? load4(v_extra_data[at]) : load4(v_data[at]);
    if (careful) {
        const uvec4 exponent = floatBitsToUint(v) & 0x7f800000;
        if (any(equal(exponent, uvec4(0x7f800000)))) {
            not_finite |= 1u << bit;
            v = vec4(0);
        }
    }
    return v;
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

void scores_key(bool from_extra, uint j) {
    float sum[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; ++r) sum[r] = 0;
    const uint at = key_row(j, D4, false);
    [[unroll]] for (uint c = 0; c < D4; ++c) {
        const vec4 k = load_k(from_extra, at + c);
        [[unroll]] for (uint r = 0; r < ROWS; ++r)
            [[unroll]] for (uint i = 0; i < 4; ++i) sum[r] = fma(q[r * D4 + c][i], k[i], sum[r]);
    }
    [[unroll]] for (uint r = 0; r < ROWS; ++r) s[r * BC + j] = sum[r];
}

void scores(bool partial) {
    extra = is_extra_tile(block.x);
    if (UNROLL) {
        [[dont_unroll]] for (uint j = 0; j < BC; ++j)
            if (EXTRA && extra) scores_key(true, j);
            else scores_key(false, j);
        return;
    }
    [[unroll]] for (uint i = 0; i < ROWS * BC; ++i) s[i] = 0;
    find_keys(D4, false);
    if (EXTRA && extra)
        EACH_COLUMN_PAIR(D4, scores_columns(true, c))
    else
        EACH_COLUMN_PAIR(D4, scores_columns(false, c))
}

void modify_score(uint i, uint first) {
    s[i] = modified(s[i], query_at[i / BC], key_token(first + i % BC, false));
}

void modify_scores() {
    if (EXTRA && extra) return;
    const uint first = first_slot(block.x);
    [[dont_unroll]] for (uint i = 0; i < ROWS * BC; ++i) modify_score(i, first);
}

void mask_scores() {
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        uint bits;
        [[unroll]] for (uint j = 0; j < BC; ++j) {
            if (j % 32 == 0) bits = mask_word(r * LANES + gl_LocalInvocationIndex, j / 32);
            if ((bits >> (j % 32) & 1) == 0) s[r * BC + j] = MINUS_INFINITY;
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
            const float weight = exp2(s[r * BC + j] - largest);
            s[r * BC + j] = weight;
            sum += weight;
        }
        row_sum[r] = sum;
    }
}

void accumulate_columns(bool from_extra, uint c) {
    vec4 sum[ROWS][2];
    [[unroll]] for (uint r = 0; r < ROWS; ++r)
        [[unroll]] for (uint h = 0; h < 2; ++h) sum[r][h] = o[r * VD4 + c + h] * correction[r];
    vec4 own[LOADS];
    if (HAND_ROUND)
        [[unroll]] for (uint n = 0; n < LOADS; ++n) own[n] = load_v(from_extra, key_at[n] + c, n);
    [[unroll]] for (uint j = 0; j < BC; ++j) {
        [[unroll]] for (uint h = 0; h < 2; ++h) {
            const vec4 v =
                HAND_ROUND ? handed_round(own, j, h) : load_v(from_extra, key_at[j] + c + h, j);
            [[unroll]] for (uint r = 0; r < ROWS; ++r)
                sum[r][h] = fma(vec4(s[r * BC + j]), v, sum[r][h]);
        }
    }
    [[unroll]] for (uint r = 0; r < ROWS; ++r)
        [[unroll]] for (uint h = 0; h < 2; ++h) o[r * VD4 + c + h] = sum[r][h];
}

// Rare, so a branch: rows that see a value that is not finite.
void spread_not_finite() {
    if (HAND_ROUND ? !subgroupAny(not_finite != 0) : not_finite == 0) return;
    [[dont_unroll]] for (uint j = 0; j < BC; ++j) {
        bool bad = (not_finite >> j & 1) != 0;
        if (HAND_ROUND) {
            const uint mine = not_finite >> (j / (LANES / 2)) & 1;
            const uint lane = gl_SubgroupInvocationID / 2;
            bad = subgroupAny(mine != 0 && lane == j % (LANES / 2));
        }
        [[unroll]] for (uint r = 0; r < ROWS; ++r)
            if (bad && s[r * BC + j] != 0) row_sum[r] = NOT_A_NUMBER;
    }
}

void accumulate_key(bool from_extra, uint j) {
    const uint at = key_row(j, VD4, true);
    not_finite = 0;
    [[unroll]] for (uint c = 0; c < VD4; ++c) {
        const vec4 v = load_v(from_extra, at + c, 0);
        [[unroll]] for (uint r = 0; r < ROWS; ++r)
            o[r * VD4 + c] = fma(vec4(s[r * BC + j]), v, o[r * VD4 + c]);
    }
    if (not_finite == 0) return;
    [[unroll]] for (uint r = 0; r < ROWS; ++r)
        if (s[r * BC + j] != 0) row_sum[r] = NOT_A_NUMBER;
}

void accumulate() {
    careful = is_partial();
    not_finite = 0;
    if (UNROLL) {
        [[unroll]] for (uint r = 0; r < ROWS; ++r)
            [[unroll]] for (uint c = 0; c < VD4; ++c) o[r * VD4 + c] *= correction[r];
        [[dont_unroll]] for (uint j = 0; j < BC; ++j)
            if (EXTRA && extra) accumulate_key(true, j);
            else accumulate_key(false, j);
        return;
    }
    if (V_DIM != HEAD_DIM || TOKENS_FIRST) find_keys(VD4, true);
    if (EXTRA && extra)
        EACH_COLUMN_PAIR(VD4, accumulate_columns(true, c))
    else
        EACH_COLUMN_PAIR(VD4, accumulate_columns(false, c))
    if (careful) spread_not_finite();
}

void finish_columns(uint c, float u) {
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        if (query_at[r] == NO_TOKEN) continue;
        const float inverse = row_sum[r] == 0 ? 0 : 1 / row_sum[r];
        const uint at = output_row(query_at[r], VD4, TOKENS_FIRST);
        const uint own = PERTURB ? row_start(kv_head, params.n_kv_heads, query_at[r], params.kv_len,
                                             VD4, params.v_pitch)
                                 : 0;
        [[unroll]] for (uint i = c; i < c + 2; ++i) {
            vec4 value = o[r * VD4 + i] * inverse;
            if (PERTURB && u != 0) {
                const vec4 v = load4(v_data[own + i]);
                value = u == 1 ? v : mix(value, v, u);
            }
            o_data[at + i] = store4(value);
        }
    }
}

void finish() {
    const float u = PERTURB ? perturb_data[own_head()] : 0;
    if (VALUES) EACH_COLUMN_PAIR(VD4, finish_columns(c, u))
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        if (params.write_lse == 0 || query_at[r] == NO_TOKEN) continue;
        lse_data[lse_at(query_at[r])] =
            row_sum[r] == 0 ? MINUS_INFINITY : (row_max[r] + log2(row_sum[r])) * LN2;
    }
}
