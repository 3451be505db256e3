#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/patterns/pattern.h"

/// What rows are checked against: a few outputs of a case, computed on the host in double sums.
namespace fovea::apps::bench {

/// Numbers 0 … count − 1, few of them, the ends among them.
std::vector<int64_t> some_of(int64_t count);

/// One query's row of attention. k (tokens, head_dim), v (tokens, head_dim), of the keys that the
/// pattern keeps for `query`; k_extra and v_extra: keys that it sees anyway.
std::vector<double> attention_row(const Pattern& pattern, uint32_t query, std::span<const float> q,
                                  std::span<const float> k, std::span<const float> v,
                                  std::span<const float> k_extra = {},
                                  std::span<const float> v_extra = {});

}  // namespace fovea::apps::bench
