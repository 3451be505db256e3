#pragma once

#include "backend/ops/activation.h"
#include "backend/tensor.h"

namespace fovea {

struct GroupNormOptions {
    Tensor weight, bias;  ///< (c), or absent
    int groups = 32;      ///< of c / groups neighbouring channels
    float eps = 1e-5f;
    Activation activation = Activation::none;
};

/// Each group of each picture of x (b, h, w, c) to mean 0 and variance 1, then
/// activation(· weight + bias).
Tensor group_norm(vk::Stream& stream, const Tensor& x, const GroupNormOptions& options = {});

}  // namespace fovea
