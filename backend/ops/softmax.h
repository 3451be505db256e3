#pragma once

#include "backend/tensor.h"

namespace fovea {

/// Softmax over the last axis; a row of nothing but −∞ gives 0.
Tensor softmax(vk::Stream& stream, const Tensor& x);

}  // namespace fovea
