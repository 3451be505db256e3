#pragma once

#include <vector>

#include "backend/tensor.h"

namespace fovea {

/// Axis k of the result is axis axes[k] of x, which may be a view of Tensor::columns(). Up to rank
/// 6; f32, i32, f16.
Tensor permute(vk::Stream& stream, const Tensor& x, const std::vector<int>& axes);

/// Element (i, j, …) of the result is element Σ i·strides of x, counted in elements. A stride of 0
/// repeats. Up to rank 6; `op` names the caller in errors and profiles.
Tensor strided_copy(vk::Stream& stream, const Tensor& x, const Shape& shape,
                    const std::vector<int64_t>& strides, std::string_view op = "strided_copy");

/// A dense copy of a view of Tensor::columns().
Tensor compact(vk::Stream& stream, const Tensor& view);

}  // namespace fovea
