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
    Activation x_activation = Activation::none;     ///< of x on its way in
    AttentionPath path = AttentionPath::automatic;  ///< an ineligible choice is an Error
};

/// y = residual + gate * activation(x_activation(x) w + bias), absent parts left out. x (…, k),
/// w (k, n) → y (…, n). Sums are fp32.
Tensor gemm(vk::Stream& stream, const Tensor& x, const Tensor& w, const GemmOptions& options = {});

/// The path that gemm() takes of m rows: the wanted one, that of FOVEA_PATH, or the fastest. That
/// is the scalar one for few rows on GPUs, which has a kernel for them (takes_thin() of thin.h),
/// matrix units where the device has them for f16 and k a multiple of 8 (product_path() of
/// matrix_tile.h), and the scalar one for everything else.
AttentionPath gemm_path(const vk::DeviceInfo& device, DType dtype, int64_t m, int64_t n, int64_t k,
                        AttentionPath wanted = AttentionPath::automatic);

}  // namespace fovea
