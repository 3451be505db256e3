#pragma once

#include "backend/ops/activation.h"
#include "backend/tensor.h"

namespace fovea {

struct Conv2dOptions {
    Tensor bias;  ///< (co)
    int stride = 1;
    Activation activation = Activation::none;
    Tensor residual;  ///< as the result
};

/// activation(x * w + bias + residual). x (b, h, w, ci), w (kh, kw, ci, co) with kh = kw = 1 or 3,
/// zero padding kh / 2 → (b, ⌈h / stride⌉, ⌈w / stride⌉, co): PyTorch's Conv2d(padding = k // 2).
Tensor conv2d(vk::Stream& stream, const Tensor& x, const Tensor& w,
              const Conv2dOptions& options = {});

}  // namespace fovea
