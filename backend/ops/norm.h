#pragma once

#include "backend/tensor.h"

namespace fovea {

/// Absent tensors are left out.
struct NormOptions {
    Tensor weight, bias;  ///< (n)
    /// (batch, n): result · (1 + scale) + shift; row r uses row r / (rows / batch)
    Tensor shift, scale;
    float eps = 1e-6f;
};

/// (x − mean) / √(variance + eps) over the last axis; variance of the whole population.
Tensor layer_norm(vk::Stream& stream, const Tensor& x, const NormOptions& options = {});

/// x / √(mean of x² + eps) over the last axis. Both take columns of a wider tensor; the result is
/// dense.
Tensor rms_norm(vk::Stream& stream, const Tensor& x, const NormOptions& options = {});

}  // namespace fovea
