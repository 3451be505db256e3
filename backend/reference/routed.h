#pragma once
/// The specification of backend/ops/routed.h.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

namespace fovea::reference {

struct RoutedShape {
    size_t batch, rows, columns, heads, head_dim, v_dim;
    size_t region_rows, region_columns, keep;
    size_t tokens() const { return rows * columns; }
    size_t region_of(size_t token) const {
        return token / columns / (rows / region_rows) * region_columns +
               token % columns / (columns / region_columns);
    }
};

/// q, k, v and o (batch, tokens, heads, dim).
inline std::vector<float> routed_attention(std::span<const float> q, std::span<const float> k,
                                           std::span<const float> v, const RoutedShape& s) {
    const size_t n = s.tokens(), width = s.heads * s.head_dim,
                 regions = s.region_rows * s.region_columns;
    const double scale = 1 / std::sqrt(static_cast<double>(width));
    std::vector<float> o(s.batch * n * s.heads * s.v_dim);
    for (size_t b = 0; b < s.batch; ++b) {
        std::vector<double> mean_q(regions * width), mean_k(regions * width);
        for (size_t t = 0; t < n; ++t)
            for (size_t c = 0; c < width; ++c) {
                mean_q[s.region_of(t) * width + c] += q[(b * n + t) * width + c];
                mean_k[s.region_of(t) * width + c] += k[(b * n + t) * width + c];
            }
        std::vector<uint8_t> seen(regions * regions);
        for (size_t i = 0; i < regions; ++i) {
            std::vector<double> scores(regions);
            for (size_t j = 0; j < regions; ++j)
                for (size_t c = 0; c < width; ++c)
                    scores[j] += mean_q[i * width + c] * mean_k[j * width + c];
            std::vector<size_t> order(regions);
            std::iota(order.begin(), order.end(), size_t{0});
            std::sort(order.begin(), order.end(),
                      [&](size_t x, size_t y) { return scores[x] > scores[y]; });
            for (size_t j = 0; j < s.keep; ++j) seen[i * regions + order[j]] = 1;
        }
        for (size_t h = 0; h < s.heads; ++h)
            for (size_t i = 0; i < n; ++i) {
                std::vector<double> weights(n);
                double sum = 0;
                for (size_t j = 0; j < n; ++j) {
                    if (!seen[s.region_of(i) * regions + s.region_of(j)]) continue;
                    double dot = 0;
                    for (size_t c = 0; c < s.head_dim; ++c)
                        dot += double{q[((b * n + i) * s.heads + h) * s.head_dim + c]} *
                               k[((b * n + j) * s.heads + h) * s.head_dim + c];
                    sum += weights[j] = std::exp(scale * dot);
                }
                for (size_t c = 0; c < s.v_dim; ++c) {
                    double value = 0;
                    for (size_t j = 0; j < n; ++j)
                        value += weights[j] * v[((b * n + j) * s.heads + h) * s.v_dim + c];
                    o[((b * n + i) * s.heads + h) * s.v_dim + c] = static_cast<float>(value / sum);
                }
            }
    }
    return o;
}

}  // namespace fovea::reference
