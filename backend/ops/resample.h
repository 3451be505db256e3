#pragma once

#include "backend/tensor.h"

namespace fovea {

/// Every pixel becomes factor × factor: (b, h, w, c) → (b, factor · h, factor · w, c).
Tensor upsample_nearest(vk::Stream& stream, const Tensor& x, int factor);

}  // namespace fovea
