#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

/// The specification of backend/ops/probabilities.h: float in, double sums.
namespace fovea::reference {

struct MapShape {
    size_t batch, queries, keys, heads, dim;  ///< dim: of a head of q and k, or of v
};

/// q (batch, queries, heads, dim), k (batch, keys, heads, dim) → (batch, heads, queries, keys)
inline std::vector<float> probabilities(std::span<const float> q, std::span<const float> k,
                                        const MapShape& s, double scale) {
    std::vector<float> map(s.batch * s.heads * s.queries * s.keys);
    std::vector<double> logits(s.keys);
    for (size_t row = 0; row < map.size() / s.keys; ++row) {
        const size_t i = row % s.queries, h = row / s.queries % s.heads,
                     b = row / s.queries / s.heads;
        double most = -std::numeric_limits<double>::infinity(), sum = 0;
        for (size_t j = 0; j < s.keys; ++j) {
            double dot = 0;
            for (size_t c = 0; c < s.dim; ++c)
                dot += double{q[((b * s.queries + i) * s.heads + h) * s.dim + c]} *
                       k[((b * s.keys + j) * s.heads + h) * s.dim + c];
            logits[j] = scale * dot;
            most = std::max(most, logits[j]);
        }
        for (const double logit : logits) sum += std::exp(logit - most);
        for (size_t j = 0; j < s.keys; ++j)
            map[row * s.keys + j] = static_cast<float>(std::exp(logits[j] - most) / sum);
    }
    return map;
}

/// map (batch, heads, queries, keys), v (batch, keys, heads, dim) → (batch, queries, heads, dim)
inline std::vector<float> weighted_values(std::span<const float> map, std::span<const float> v,
                                          const MapShape& s) {
    std::vector<float> o(s.batch * s.queries * s.heads * s.dim);
    for (size_t at = 0; at < o.size(); ++at) {
        const size_t c = at % s.dim, h = at / s.dim % s.heads, i = at / s.dim / s.heads % s.queries,
                     b = at / s.dim / s.heads / s.queries;
        double sum = 0;
        for (size_t j = 0; j < s.keys; ++j)
            sum += double{map[((b * s.heads + h) * s.queries + i) * s.keys + j]} *
                   v[((b * s.keys + j) * s.heads + h) * s.dim + c];
        o[at] = static_cast<float>(sum);
    }
    return o;
}

}  // namespace fovea::reference
