#include "backend/ops/thin.h"

#include <algorithm>
#include <bit>

#include "backend/ops/dispatch.h"
#include "backend/ops/tile.h"
#include "shaders.h"
#include "shaders/gemm/gemm_params.h"

namespace fovea {
namespace {

constexpr uint32_t kDepth = 8;     ///< DEPTH of the kernel
constexpr uint32_t kMostRows = 8;  ///< of a workgroup, whose sums are in registers

/// Elements of 16 bytes.
int64_t width_of(DType dtype) {
    return dtype == DType::f16 ? 8 : 4;
}

/// Invocations across columns: as few bytes of a row of w side by side as it takes to have a
/// workgroup for each processor of a large GPU, but a sector of memory (32 bytes) at the least.
uint32_t lanes_of(int64_t vectors) {
    const auto wide = static_cast<uint64_t>(vectors) / kEnoughWorkgroups;
    return wide >= 8 ? 8 : wide >= 4 ? 4 : 2;
}

}  // namespace

bool takes_thin(const vk::DeviceInfo& device, DType dtype, int64_t m, int64_t n, int64_t k) {
    // In f16 more rows are for matrix units. In f32 it is rows of as many pictures as go together,
    // with guidance: each must come out as it does alone.
    const int64_t most = dtype == DType::f16 ? kMostRows : 32;
    return !uses_software_loads(device) && m <= most && k % kDepth == 0 && n % width_of(dtype) == 0;
}

void dispatch_thin(vk::Stream& stream, const Tensor& x, const Tensor& w, const Tensor& y,
                   const GemmOptions& options) {
    const int64_t k = w.dim(0), n = w.dim(1), m = x.numel() / k;
    const int64_t vectors = n / width_of(x.dtype());
    const uint32_t lanes = lanes_of(vectors);
    const uint32_t rows = std::min(std::bit_ceil(static_cast<uint32_t>(m)), kMostRows);
    const vk::Program& program = stream.device().program(
        by_dtype("gemm", x.dtype(), shader::gemm_thin_f32, shader::gemm_thin_f16),
        {/*WORKGROUP=*/std::min(256u, stream.device().info().limits.workgroup_invocations),
         /*LANES=*/lanes, /*ROWS=*/rows,
         /*X_ACTIVATION=*/static_cast<uint32_t>(options.x_activation)});
    const ThinParams params{
        .m = static_cast<uint32_t>(m),
        .n = static_cast<uint32_t>(n),
        .k = static_cast<uint32_t>(k),
        .gate_rows = static_cast<uint32_t>(options.gate ? m / options.gate.dim(0) : m),
        .flags = (options.bias ? THIN_BIAS : 0) | (options.gate ? THIN_GATE : 0) |
                 (options.residual ? THIN_RESIDUAL : 0),
        .activation = static_cast<uint32_t>(options.activation)};
    vk::Groups groups = groups_for(static_cast<uint64_t>(vectors), lanes);
    groups.z = (static_cast<uint32_t>(m) + rows - 1) / rows;
    stream.dispatch(program,
                    {read(x), read(w), write(y), read(options.bias), read(options.residual),
                     read(options.gate)},
                    params, groups, "gemm");
}

}  // namespace fovea
