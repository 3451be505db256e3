#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "backend/patterns/compact.h"
#include "backend/reference/attention.h"

/// Attention to selected blocks with the rest made up for, rows sorted. The specification of
/// backend/ops/rectified.h.
namespace fovea::reference {

struct Rectified {
    std::vector<uint8_t> seen;   // (batch, heads, blocks, blocks)
    std::vector<float> factors;  // (batch, heads, blocks)
    std::vector<float> o;        // (batch, heads, tokens, v_dim)
};

/// The mean over the tokens of each of the grid's blocks, and their mean distance from it:
/// (blocks, d) each. x (tokens, d).
struct BlockMeans {
    std::vector<double> mean, spread;
};
inline BlockMeans block_means(const float* x, size_t d, const CompactBlocks& b) {
    BlockMeans m{std::vector<double>(b.grid_blocks * d), std::vector<double>(b.grid_blocks * d)};
    for (size_t i = 0; i < m.mean.size(); ++i) {
        const size_t first = i / d * b.block, c = i % d;
        const double n = std::min<double>(b.block, b.grid_tokens - double(first));
        for (size_t s = first; s < first + static_cast<size_t>(n); ++s)
            m.mean[i] += x[b.order[s] * d + c] / n;
        for (size_t s = first; s < first + static_cast<size_t>(n); ++s)
            m.spread[i] += std::abs(x[b.order[s] * d + c] - m.mean[i]) / n;
    }
    return m;
}

/// q, k, v as of attention(), s.q_len = s.kv_len = the tokens of `b`.
inline Rectified rectified(std::span<const float> q, std::span<const float> k,
                           std::span<const float> v, const CompactBlocks& b,
                           const AttentionShape& s, double keep, double mass, bool rectify) {
    const size_t d = s.head_dim, dv = s.v_dim ? s.v_dim : d, n = b.blocks(), grid = b.grid_blocks;
    const double scale = s.scale != 0 ? double{s.scale} : 1 / std::sqrt(double(d));
    std::vector<uint32_t> slot_of(s.q_len);
    for (uint32_t slot = 0; slot < b.order.size(); ++slot)
        if (b.order[slot] != BlockList::kNoToken) slot_of[b.order[slot]] = slot;
    Rectified result;
    for (size_t bh = 0; bh < size_t{s.batch} * s.heads; ++bh) {
        const size_t kv = bh / s.heads * s.kv_heads + bh % s.heads / (s.heads / s.kv_heads);
        const float* own_k = &k[kv * s.kv_len * d];
        const BlockMeans qm = block_means(&q[bh * s.q_len * d], d, b),
                         km = block_means(own_k, d, b),
                         vm = block_means(&v[kv * s.kv_len * dv], dv, b);
        std::vector<uint8_t> seen(n * n, 1);
        std::vector<double> factors(n, 1), addends(n * dv);
        for (size_t i = 0; i < grid; ++i) {
            std::vector<double> p(grid);
            std::vector<uint8_t> worth(grid);
            double all = 0, most = 0, text = 0;
            std::vector<double> text_scores;
            for (size_t t = 0; t < b.text_tokens; ++t) {
                double score = 0;
                for (size_t c = 0; c < d; ++c)
                    score += qm.mean[i * d + c] * own_k[(b.grid_tokens + t) * d + c];
                text_scores.push_back(score * scale);
                most = std::max(most, score * scale);
            }
            for (size_t j = 0; j < grid; ++j) {
                double score = 0, q_error = 0, k_error = 0;
                for (size_t c = 0; c < d; ++c) {
                    score += qm.mean[i * d + c] * km.mean[j * d + c];
                    q_error += qm.spread[i * d + c] * km.mean[j * d + c];
                    k_error += qm.mean[i * d + c] * km.spread[j * d + c];
                }
                worth[j] = std::abs(score) > std::abs(q_error) + std::abs(k_error);
                p[j] = score * scale;
                most = std::max(most, p[j]);
            }
            for (const double score : text_scores) text += std::exp(score - most);
            for (size_t j = 0; j < grid; ++j) {
                const double tokens =
                    std::min<double>(b.block, b.grid_tokens - double(j * b.block));
                p[j] = tokens * std::exp(p[j] - most);
                all += p[j];
            }
            all += text;
            // The blocks that always count first, then by falling p.
            std::vector<size_t> order(grid);
            std::iota(order.begin(), order.end(), 0);
            std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) {
                const bool tx = b.touch[i * n + x], ty = b.touch[i * n + y];
                return tx != ty ? tx : p[x] > p[y];
            });
            const auto least = std::max(1.0, std::ceil(keep * double(grid) - 1e-3));
            double sum = text / all, count = 0;
            for (const size_t j : order) {
                const bool enough = sum > mass && count >= least && !b.touch[i * n + j];
                seen[i * n + j] = !enough;
                if (enough) continue;
                sum += p[j] / all;
                count += 1;
            }
            for (size_t j = 0; rectify && j < grid; ++j) {
                if (seen[i * n + j] || !worth[j]) continue;
                factors[i] -= p[j] / all;
                for (size_t c = 0; c < dv; ++c)
                    addends[i * dv + c] += p[j] / all * vm.mean[j * dv + c];
            }
        }
        const auto sees = [&](uint32_t x, uint32_t y) {
            return seen[slot_of[x] / b.block * n + slot_of[y] / b.block] != 0;
        };
        AttentionShape one = s;
        one.batch = one.heads = one.kv_heads = 1;
        struct Rule {
            const decltype(sees)& rule;
            bool keeps(uint32_t x, uint32_t y) const { return rule(x, y); }
            fovea::Grid grid() const { return {}; }
            std::string key() const { return "seen"; }
        };
        const auto part = attention(q.subspan(bh * s.q_len * d, s.q_len * d),
                                    k.subspan(kv * s.kv_len * d, s.kv_len * d),
                                    v.subspan(kv * s.kv_len * dv, s.kv_len * dv), Rule{sees}, one);
        for (size_t x = 0; x < part.o.size(); ++x) {
            const size_t block = slot_of[x / dv] / b.block;
            result.o.push_back(static_cast<float>(factors[block] * double{part.o[x]} +
                                                  addends[block * dv + x % dv]));
        }
        result.seen.insert(result.seen.end(), seen.begin(), seen.end());
        for (const double factor : factors) result.factors.push_back(static_cast<float>(factor));
    }
    return result;
}

}  // namespace fovea::reference
