#pragma once

#include "backend/ops/activation.h"
#include "backend/ops/attention.h"
#include "backend/tensor.h"

namespace fovea {

struct Conv2dOptions {
    Tensor bias;  ///< (co)
    int stride = 1;
    Activation activation = Activation::none;
    Tensor residual;                                ///< as the result
    AttentionPath path = AttentionPath::automatic;  ///< an ineligible choice is an Error
};

/// activation(x * w + bias + residual). x (b, h, w, ci), w (kh, kw, ci, co) with kh = kw = 1 or 3,
/// zero padding kh / 2 → (b, ⌈h / stride⌉, ⌈w / stride⌉, co): PyTorch's Conv2d(padding = k // 2).
/// Sums are fp32. f16 tensors with ci a multiple of 8 run on matrix units where the device
/// has them, everything else on the scalar path: product_path() of matrix_tile.h.
Tensor conv2d(vk::Stream& stream, const Tensor& x, const Tensor& w,
              const Conv2dOptions& options = {});

}  // namespace fovea
