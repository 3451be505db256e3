#pragma once

#include <array>
#include <cstdint>

#include "backend/ops/head_layout.h"
#include "backend/tensor.h"

namespace fovea {

struct RopeOptions {
    /// Dims of a head for time, row and column, in this order; each even or 0; what is left of the
    /// head passes through.
    std::array<int, 3> axes = {0, 0, 0};
    std::array<int64_t, 3> grid = {1, 1, 1};  ///< frames, rows, columns; their product is tokens
    float theta = 100;
    Tensor norm_weight;  ///< (head_dim): RMS norm of each head vector before; absent: none
    float eps = 1e-6f;   ///< of that norm
    HeadLayout layout = HeadLayout::heads_first;
};

/// Turns the pairs (x[2j], x[2j+1]) of every head vector by position · theta^(−j / (n/2)) on each
/// axis of n dims (docs/model-format.md). x: (batch, heads, tokens, head_dim), or tokens
/// first and then columns of a wider tensor too; the result is dense.
Tensor rope(vk::Stream& stream, const Tensor& x, const RopeOptions& options);

}  // namespace fovea
