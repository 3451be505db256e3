#pragma once

#include "backend/ops/activation.h"
#include "backend/tensor.h"

namespace fovea {

struct GemmOptions {
    Tensor bias;  ///< (n)
    Activation activation = Activation::none;
    Tensor gate;      ///< (batch, n): row r of x uses gate row r / (rows / batch)
    Tensor residual;  ///< as y
};

/// y = residual + gate * activation(x w + bias), absent parts left out. x (…, k), w (k, n) →
/// y (…, n).
Tensor gemm(vk::Stream& stream, const Tensor& x, const Tensor& w, const GemmOptions& options = {});

}  // namespace fovea
