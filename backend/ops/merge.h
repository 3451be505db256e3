#pragma once

#include <span>

#include "backend/tensor.h"

namespace fovea {

/// What attention over some of the keys gives.
struct AttentionPart {
    Tensor o;    ///< (…, d), f32 or f16; d a multiple of 4
    Tensor lse;  ///< (…) f32, natural logarithm; −∞ where no key was seen: o counts for nothing
};

/// Attention over the union of disjoint sets of keys from the results over each set, any number of
/// them: lse = ln Σ exp(lse_i), o = Σ exp(lse_i − lse) · o_i. Rows that no part has a key for give
/// 0 and −∞. fp32 arithmetic throughout; the error does not grow with the number of parts. Inputs
/// that are NaN or +∞ give results without meaning.
AttentionPart merge(vk::Stream& stream, std::span<const AttentionPart> parts);

}  // namespace fovea
