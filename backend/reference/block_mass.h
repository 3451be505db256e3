#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/reference/attention.h"

/// The pooled attention map from the whole map. The specification of backend/ops/block_mass.h.
namespace fovea::reference {

/// A head's sequences cut into blocks: the token of each slot (kNoToken: none); empty: slot i holds
/// token i.
struct Sequences {
    std::vector<uint32_t> queries, keys;
};

/// (batch, heads, query blocks, key blocks): mean over the queries of a block of the softmax summed
/// over the keys of a block. One element of `sequences` a head, or none.
inline std::vector<float> block_mass(std::span<const float> q, std::span<const float> k,
                                     const Pattern& pattern, const AttentionShape& s,
                                     uint32_t block_q, uint32_t block_k,
                                     std::span<const Sequences> sequences = {}) {
    const double scale = s.scale != 0 ? double{s.scale} : 1 / std::sqrt(double{1} * s.head_dim);
    std::vector<float> result;
    for (uint32_t bh = 0; bh < s.batch * s.heads; ++bh) {
        const uint32_t h = bh % s.heads;
        const Pattern head = pattern.head(h);
        Sequences own = sequences.empty() ? Sequences{} : sequences[h];
        for (uint32_t i = 0; own.queries.size() < s.q_len; ++i) own.queries.push_back(i);
        for (uint32_t i = 0; own.keys.size() < s.kv_len; ++i) own.keys.push_back(i);
        const size_t rows = (own.queries.size() + block_q - 1) / block_q,
                     columns = (own.keys.size() + block_k - 1) / block_k;
        const size_t kv = size_t{bh / s.heads} * s.kv_heads + h / (s.heads / s.kv_heads);
        std::vector<double> sum(rows * columns), queries(rows), weights(own.keys.size());
        for (size_t i = 0; i < own.queries.size(); ++i) {
            const uint32_t token = own.queries[i];
            if (token == BlockList::kNoToken) continue;
            queries[i / block_q] += 1;
            double most = -std::numeric_limits<double>::infinity(), total = 0;
            for (size_t j = 0; j < own.keys.size(); ++j) {
                weights[j] = -std::numeric_limits<double>::infinity();
                if (own.keys[j] == BlockList::kNoToken || !head.keeps(token, own.keys[j])) continue;
                double dot = 0;
                for (size_t c = 0; c < s.head_dim; ++c)
                    dot += double{q[(size_t{bh} * s.q_len + token) * s.head_dim + c]} *
                           k[(kv * s.kv_len + own.keys[j]) * s.head_dim + c];
                weights[j] = scale * dot;
                most = std::max(most, weights[j]);
            }
            for (double& weight : weights) {
                weight = std::isinf(weight) ? 0 : std::exp(weight - most);
                total += weight;
            }
            if (total == 0) continue;
            for (size_t j = 0; j < weights.size(); ++j)
                sum[i / block_q * columns + j / block_k] += weights[j] / total;
        }
        for (size_t i = 0; i < sum.size(); ++i)
            result.push_back(static_cast<float>(sum[i] / std::max(1.0, queries[i / columns])));
    }
    return result;
}

}  // namespace fovea::reference
