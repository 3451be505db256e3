#pragma once

#include "backend/ops/activation.h"
#include "backend/ops/attention.h"
#include "backend/tensor.h"

namespace fovea {

struct GemmOptions {
    Tensor bias;  ///< (n)
    Activation activation = Activation::none;
    Tensor gate;      ///< (batch, n): row r of x uses gate row r / (rows / batch)
    Tensor residual;  ///< as y
    AttentionPath path = AttentionPath::automatic;  ///< an ineligible choice is an Error
};

/// y = residual + gate * activation(x w + bias), absent parts left out. x (…, k), w (k, n) →
/// y (…, n). Sums are fp32. f16 tensors with k a multiple of 8 run on matrix units where the
/// device has them, everything else on the scalar path: product_path() of matrix_tile.h.
Tensor gemm(vk::Stream& stream, const Tensor& x, const Tensor& w, const GemmOptions& options = {});

}  // namespace fovea
