#pragma once

#include "backend/ops/attention.h"
#include "backend/tensor.h"

namespace fovea {

/// The share of attention that every query gives to some of the keys, without a map:
/// exp(lse_range − lse_all), from the LSEs of attention over those keys and over all. Both f32, of
/// one shape, natural logarithms. 0 where the range holds no key. Of a logit of 10⁴ the difference
/// keeps about three digits.
Tensor range_mass(vk::Stream& stream, const Tensor& lse_range, const Tensor& lse_all);

struct RangeMassOptions {
    float scale = 0;  ///< 0: head_dim^-1/2
    AttentionPath path = AttentionPath::automatic;
};

/// The same from queries and keys: (batch, heads, q_len) f32 for q (batch, heads, q_len, head_dim)
/// and k (batch, kv_heads, kv_len, head_dim) as in attention(), every query seeing every key; the
/// share of keys range.begin … range.end − 1. Costs the scores of all keys and of the range.
Tensor range_mass(vk::Stream& stream, const Tensor& q, const Tensor& k, TokenRange range,
                  const RangeMassOptions& options = {});

}  // namespace fovea
