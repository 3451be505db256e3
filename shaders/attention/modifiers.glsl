// Changes of single logits, for tokens of the grid (extra keys have none):
//   logit · multipliers[label of query, label of key] + bias[query, key] + relative bias + ln weight[key]
// Each is a specialisation constant: absent ones leave no trace.

const bool BIAS = (FLAGS & FLAG_BIAS) != 0;
const bool RELATIVE_BIAS = (FLAGS & FLAG_RELATIVE_BIAS) != 0;
const bool KEY_WEIGHTS = (FLAGS & FLAG_KEY_WEIGHTS) != 0;
const bool MULTIPLIERS = (FLAGS & FLAG_MULTIPLIERS) != 0;
const bool MODIFIED = BIAS || RELATIVE_BIAS || KEY_WEIGHTS || MULTIPLIERS;
const float LOG2E = 1.4426950408889634;

layout(set = 0, binding = 9) readonly buffer Bias { float bias_data[]; };
layout(set = 0, binding = 10) readonly buffer RelativeBias { float relative_bias_data[]; };
layout(set = 0, binding = 11) readonly buffer KeyWeights { float key_weights_data[]; };
layout(set = 0, binding = 12) readonly buffer QLabels { int q_label_data[]; };
layout(set = 0, binding = 13) readonly buffer KLabels { int k_label_data[]; };
layout(set = 0, binding = 14) readonly buffer Multipliers { float multiplier_data[]; };

// −FLT_MAX, which some use as a mask, must not become −∞: a row of such keys alone is their mean.
float to_log2(float bias) {
    return isinf(bias) ? bias : max(LOG2E * bias, LEAST);
}

// `score` is to base 2. Tokens may be NO_TOKEN: what comes out is masked or not stored.
float modified(float score, uint query, uint key) {
    if (query == NO_TOKEN || key == NO_TOKEN) return score;
    if (MULTIPLIERS)
        score *= multiplier_data[min(uint(q_label_data[query]), params.q_labels - 1) *
                                     params.k_labels +
                                 min(uint(k_label_data[key]), params.k_labels - 1)];
    if (BIAS)
        score += to_log2(bias_data[own_head() * params.bias_head_stride +
                                   query * params.kv_len + key]);
    if (RELATIVE_BIAS) {
        const uint columns = params.grid_columns;
        const uint row = query / columns + params.grid_rows - 1 - key / columns;
        const uint column = query % columns + columns - 1 - key % columns;
        score += to_log2(relative_bias_data[own_head() * params.relative_head_stride +
                                            row * (2 * columns - 1) + column]);
    }
    if (KEY_WEIGHTS)
        score += log2(key_weights_data[own_head() * params.weights_head_stride + key]);
    return score;
}
