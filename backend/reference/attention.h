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
    float scale = 0;  ///< 0: head_dim^-1/2
};

struct AttentionResult {
    std::vector<float> o;    // (batch, heads, q_len, head_dim)
    std::vector<float> lse;  // (batch, heads, q_len): ln Σ exp(scale · q·k) over the keys seen
};

/// q (batch, heads, q_len, head_dim), k and v (batch, kv_heads, kv_len, head_dim), k_extra and
/// v_extra (batch, kv_heads, extra_len, head_dim): keys that every query sees. Query head h uses
/// key head h / (heads / kv_heads). A query without any key gives 0 and lse −∞.
inline AttentionResult attention(std::span<const float> q, std::span<const float> k,
                                 std::span<const float> v, const Pattern& pattern,
                                 const AttentionShape& s, std::span<const float> k_extra = {},
                                 std::span<const float> v_extra = {}) {
    const double scale = s.scale != 0 ? double{s.scale} : 1 / std::sqrt(double{1} * s.head_dim);
    const size_t d = s.head_dim, keys = size_t{s.kv_len} + s.extra_len;
    AttentionResult result;
    result.o.resize(size_t{s.batch} * s.heads * s.q_len * d);
    result.lse.resize(size_t{s.batch} * s.heads * s.q_len);
    std::vector<double> scores(keys), sum(d);
    for (size_t row = 0; row < result.lse.size(); ++row) {
        const size_t token = row % s.q_len, head = row / s.q_len % s.heads;
        const size_t kv = row / s.q_len / s.heads * s.kv_heads + head / (s.heads / s.kv_heads);
        const auto at = [&](std::span<const float> own, std::span<const float> extra, size_t j) {
            return j < s.kv_len ? own.data() + (kv * s.kv_len + j) * d
                                : extra.data() + (kv * s.extra_len + j - s.kv_len) * d;
        };
        const auto sees = [&](size_t j) {
            return j >= s.kv_len ||
                   pattern.keeps(static_cast<uint32_t>(token), static_cast<uint32_t>(j));
        };

        double max = -std::numeric_limits<double>::infinity();
        for (size_t j = 0; j < keys; ++j) {
            scores[j] = -std::numeric_limits<double>::infinity();
            if (!sees(j)) continue;
            double dot = 0;
            const float *x = q.data() + row * d, *y = at(k, k_extra, j);
            for (size_t c = 0; c < d; ++c) dot += double{x[c]} * y[c];
            scores[j] = scale * dot;
            max = std::max(max, scores[j]);
        }
        double total = 0;
        std::fill(sum.begin(), sum.end(), 0);
        for (size_t j = 0; j < keys; ++j) {
            if (std::isinf(scores[j])) continue;
            const double weight = std::exp(scores[j] - max);
            total += weight;
            for (size_t c = 0; c < d; ++c) sum[c] += weight * at(v, v_extra, j)[c];
        }
        for (size_t c = 0; c < d; ++c)
            result.o[row * d + c] = total > 0 ? static_cast<float>(sum[c] / total) : 0;
        result.lse[row] = static_cast<float>(max + std::log(total));
        if (total == 0) result.lse[row] = -std::numeric_limits<float>::infinity();
    }
    return result;
}

}  // namespace fovea::reference
