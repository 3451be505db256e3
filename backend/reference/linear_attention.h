#pragma once
/// The specification of backend/ops/linear_attention.h.

#include <cmath>
#include <span>
#include <vector>

#include "backend/reference/activation.h"

namespace fovea::reference {

struct LinearShape {
    size_t batch, heads, q_len, kv_len, head_dim, v_dim;
};

enum class LinearNormaliser { none, sum, magnitude };

/// Absent weights are empty; "turned" ones stand in for the features but in the normaliser.
struct LinearInputs {
    std::span<const float> q, k, v;  ///< (batch, tokens, heads, dim)
    std::span<const float> key_weights, query_weights;
    std::span<const float> q_turned, k_turned, gate;
    Activation features = Activation::elu_plus_one;
    LinearNormaliser normaliser = LinearNormaliser::sum;
    double eps = 1e-6;
};

/// By pairs, as attention: no state.
inline std::vector<float> linear_attention(const LinearInputs& in, const LinearShape& s) {
    const auto at = [&](std::span<const float> x, size_t tokens, size_t dims, size_t b, size_t h,
                        size_t t, size_t i) {
        return double{x[((b * tokens + t) * s.heads + h) * dims + i]};
    };
    std::vector<float> o(s.batch * s.q_len * s.heads * s.v_dim);
    for (size_t b = 0; b < s.batch; ++b)
        for (size_t h = 0; h < s.heads; ++h)
            for (size_t i = 0; i < s.q_len; ++i) {
                std::vector<double> sum(s.v_dim), mean(s.v_dim);
                double features = 0;
                for (size_t j = 0; j < s.kv_len; ++j) {
                    double plain = 0, turned = 0;
                    for (size_t c = 0; c < s.head_dim; ++c) {
                        const double q =
                            activate(at(in.q, s.q_len, s.head_dim, b, h, i, c), in.features);
                        const double k =
                            activate(at(in.k, s.kv_len, s.head_dim, b, h, j, c), in.features);
                        plain += q * k;
                        turned += (in.q_turned.empty()
                                       ? q
                                       : at(in.q_turned, s.q_len, s.head_dim, b, h, i, c)) *
                                  (in.k_turned.empty()
                                       ? k
                                       : at(in.k_turned, s.kv_len, s.head_dim, b, h, j, c));
                    }
                    const double weight = in.key_weights.empty()
                                              ? 1
                                              : in.key_weights[(b * s.heads + h) * s.kv_len + j];
                    features += weight * plain;
                    for (size_t c = 0; c < s.v_dim; ++c) {
                        const double v = at(in.v, s.kv_len, s.v_dim, b, h, j, c);
                        sum[c] += weight * turned * v;
                        mean[c] += v / static_cast<double>(s.kv_len);
                    }
                }
                const double scale = 1 / (std::sqrt(static_cast<double>(s.head_dim)) *
                                          static_cast<double>(s.kv_len));
                const double z = scale * features;
                for (size_t c = 0; c < s.v_dim; ++c) {
                    double value = sum[c];
                    if (in.normaliser == LinearNormaliser::sum) value /= features + in.eps;
                    if (in.normaliser == LinearNormaliser::magnitude)
                        value = (1 + 1 / (z + in.eps)) * scale * value - z * mean[c];
                    if (!in.query_weights.empty())
                        value *= in.query_weights[(b * s.heads + h) * s.q_len + i];
                    const size_t to = ((b * s.q_len + i) * s.heads + h) * s.v_dim + c;
                    if (!in.gate.empty()) value *= in.gate[to];
                    o[to] = static_cast<float>(value);
                }
            }
    return o;
}

}  // namespace fovea::reference
