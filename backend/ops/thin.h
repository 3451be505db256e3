#pragma once

#include "backend/ops/gemm.h"

/// gemm of few rows, shaders/gemm/thin.comp: plain registers, all lanes busy with reading w. The
/// sums of a row are in one order whatever the number of rows is, as long as it stays thin.
namespace fovea {

/// Whether the scalar path takes this kernel: few rows, n and k in whole vectors. On CPUs it never
/// does, unless FOVEA_GEMM_LOADS=gpu: there what one row costs is arithmetic, and a picture's sums
/// are promised not to depend on its batch, however large.
bool takes_thin(const vk::DeviceInfo& device, DType dtype, int64_t m, int64_t n, int64_t k);

/// y (m, n) of x (m, k) with takes_thin(); options.path has been decided on.
void dispatch_thin(vk::Stream& stream, const Tensor& x, const Tensor& w, const Tensor& y,
                   const GemmOptions& options);

}  // namespace fovea
