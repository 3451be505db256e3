#pragma once

#include <initializer_list>

#include "backend/tensor.h"

/// Grids of tokens x (b, h, w, c), columns of wider tensors too: f32 or f16, c a multiple of 4.
namespace fovea {

/// The window of rows × columns tokens that begins at (top, left), which may be negative; what lies
/// outside of x is 0: cuts, and pads.
Tensor crop_grid(vk::Stream& stream, const Tensor& x, int64_t top, int64_t left, int64_t rows,
                 int64_t columns);

/// Means of rows × columns cells; cell i of n spans ⌊i · extent / n⌋ to ⌈(i + 1) · extent / n⌉:
/// PyTorch's adaptive_avg_pool2d.
Tensor average_pool(vk::Stream& stream, const Tensor& x, int64_t rows, int64_t columns);

/// Two to four tensors side by side along the last axis, (…, n_i) → (…, Σ n_i); the shape before it
/// is that of the first, which the rows of the others, no more than its own and dividing them,
/// repeat to fill.
Tensor concat(vk::Stream& stream, std::initializer_list<Tensor> inputs);

}  // namespace fovea
