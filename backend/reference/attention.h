#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "backend/patterns/pattern.h"

/// Attention as it is meant: float in, double sums, one query at a time. The specification of
/// backend/ops/attention.h.
namespace fovea::reference {

struct AttentionShape {
    uint32_t batch = 1, heads = 1, kv_heads = 1, q_len = 1, kv_len = 1, head_dim = 8;
    uint32_t extra_len = 0;
    float scale = 0;     ///< 0: head_dim^-1/2
    uint32_t v_dim = 0;  ///< 0: head_dim
};

/// Empty ones are absent; all tables have one entry for every head.
struct AttentionModifiers {
    std::span<const float> perturb;        ///< (heads): u
    std::span<const float> bias;           ///< (heads, q_len, kv_len)
    std::span<const float> relative_bias;  ///< (heads, 2·rows − 1, 2·columns − 1)
    uint32_t columns = 0;                  ///< of the grid that relative_bias is for
    std::span<const float> key_weights;    ///< (heads, kv_len)
    std::span<const int32_t> q_labels, k_labels;
    std::span<const float> multipliers;  ///< (labels of queries, key_label_count)
    uint32_t key_label_count = 0;

    /// The logit of head h, query i and key j, of `logit` = scale · q·k.
    double logit(double logit, size_t h, size_t i, size_t j, size_t q_len, size_t kv_len) const {
        if (!multipliers.empty())
            logit *= multipliers[static_cast<size_t>(q_labels[i]) * key_label_count +
                                 static_cast<size_t>(k_labels[j])];
        if (!bias.empty()) logit += bias[(h * q_len + i) * kv_len + j];
        if (!relative_bias.empty()) {
            const size_t rows = q_len / columns, width = size_t{2} * columns - 1;
            const size_t row = i / columns + rows - 1 - j / columns;
            const size_t column = i % columns + columns - 1 - j % columns;
            logit += relative_bias[(h * (2 * rows - 1) + row) * width + column];
        }
        if (!key_weights.empty()) logit += std::log(double{key_weights[h * kv_len + j]});
        return logit;
    }
};

struct AttentionResult {
    std::vector<float> o;    // (batch, heads, q_len, v_dim)
    std::vector<float> lse;  // (batch, heads, q_len): ln Σ exp(logit) over the keys seen
};

/// q (batch, heads, q_len, head_dim), k (batch, kv_heads, kv_len, head_dim), v (…, v_dim), k_extra
/// and v_extra (batch, kv_heads, extra_len, …): keys that every query sees. Query head h uses key
/// head h / (heads / kv_heads). A query without any key gives 0 and lse −∞. What it does not see is
/// not read.
inline AttentionResult attention(std::span<const float> q, std::span<const float> k,
                                 std::span<const float> v, const Pattern& pattern,
                                 const AttentionShape& s, std::span<const float> k_extra = {},
                                 std::span<const float> v_extra = {},
                                 const AttentionModifiers& modifiers = {}) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const double scale = s.scale != 0 ? double{s.scale} : 1 / std::sqrt(double{1} * s.head_dim);
    const size_t d = s.head_dim, dv = s.v_dim ? s.v_dim : s.head_dim;
    const size_t keys = size_t{s.kv_len} + s.extra_len;
    std::vector<Pattern> patterns;
    for (uint32_t h = 0; h < s.heads; ++h) patterns.push_back(pattern.head(h));
    AttentionResult result;
    result.o.resize(size_t{s.batch} * s.heads * s.q_len * dv);
    result.lse.resize(size_t{s.batch} * s.heads * s.q_len);
    std::vector<double> scores(keys), sum(dv);
    for (size_t row = 0; row < result.lse.size(); ++row) {
        const size_t token = row % s.q_len, head = row / s.q_len % s.heads;
        const size_t kv = row / s.q_len / s.heads * s.kv_heads + head / (s.heads / s.kv_heads);
        const auto at = [&](std::span<const float> own, std::span<const float> extra, size_t j,
                            size_t dim) {
            return j < s.kv_len ? own.data() + (kv * s.kv_len + j) * dim
                                : extra.data() + (kv * s.extra_len + j - s.kv_len) * dim;
        };
        double max = -kInfinity;
        for (size_t j = 0; j < keys; ++j) {
            scores[j] = -kInfinity;
            if (j < s.kv_len &&
                !patterns[head].keeps(static_cast<uint32_t>(token), static_cast<uint32_t>(j)))
                continue;
            double dot = 0;
            const float *x = q.data() + row * d, *y = at(k, k_extra, j, d);
            for (size_t c = 0; c < d; ++c) dot += double{x[c]} * y[c];
            scores[j] = scale * dot;
            if (j < s.kv_len)
                scores[j] = modifiers.logit(scores[j], head, token, j, s.q_len, s.kv_len);
            max = std::max(max, scores[j]);
        }
        double total = 0;
        std::fill(sum.begin(), sum.end(), 0);
        for (size_t j = 0; j < keys; ++j) {
            if (scores[j] == -kInfinity) continue;
            const double weight = std::exp(scores[j] - max);
            total += weight;
            for (size_t c = 0; c < dv; ++c) sum[c] += weight * at(v, v_extra, j, dv)[c];
        }
        const double u = modifiers.perturb.empty() ? 0 : double{modifiers.perturb[head]};
        for (size_t c = 0; c < dv; ++c) {
            double value = total == 0 ? 0 : sum[c] / total;
            if (u != 0) value = (u == 1 ? 0 : (1 - u) * value) + u * at(v, v_extra, token, dv)[c];
            result.o[row * dv + c] = static_cast<float>(value);
        }
        result.lse[row] = static_cast<float>(total == 0 ? -kInfinity : max + std::log(total));
    }
    return result;
}

}  // namespace fovea::reference
