#pragma once

#include <optional>
#include <span>
#include <string>

#include "backend/ops/activation.h"
#include "backend/ops/attention.h"
#include "backend/ops/tuning.h"
#include "backend/tensor.h"

/// gemm and conv2d on matrix units: which tile, and its dispatch. The kernel is
/// shaders/gemm/tile_matrix.glsl.
namespace fovea {

/// A workgroup's share of y and how its subgroups split it.
struct MatrixTile {
    uint32_t rows, columns;                    ///< of y
    uint32_t depth;                            ///< of k between two barriers
    uint32_t subgroup_rows, subgroup_columns;  ///< subgroups down and across
    uint32_t buffers;                          ///< slabs in shared memory: 1 or 2
    uint32_t ahead;                            ///< slabs on their way into registers: 1 or 2
    uint32_t splits = 1;                       ///< parts of k with workgroups of their own

    bool operator==(const MatrixTile&) const = default;
};

/// "128x256x32:2x4:1x1": rows, columns, depth; subgroups; buffers, slabs ahead; a fourth part ":2"
/// where k is split.
std::string to_string(const MatrixTile& tile);

/// The tiles that choose_matrix_tile() takes, the largest first.
std::span<const MatrixTile> matrix_tiles();

/// Why the device cannot run the tile; ok where it can.
vk::Support supports(const vk::DeviceInfo& device, const MatrixTile& tile);

/// For m rows, n columns and sums over k: what was measured for the op, "gemm" or "conv2d", else
/// the fastest by estimate. FOVEA_GEMM_TILE forces one, written as by to_string(); throws Error
/// where the device cannot run it.
MatrixTile choose_matrix_tile(const vk::DeviceInfo& device, int64_t m, int64_t n, int64_t k,
                              std::string_view op = "gemm");

/// What tuning may take in the place of the estimate, with the class of products that share the
/// pick; none where FOVEA_GEMM_TILE forces one.
TileCandidates matrix_tile_candidates(const vk::DeviceInfo& device, int64_t m, int64_t n, int64_t k,
                                      std::string_view op = "gemm");

/// The path of gemm and conv2d, which have a kernel for matrix units (khr and nv2 name the same
/// one) and a scalar one: `wanted`, else that of FOVEA_PATH, else the fastest. Tensors that are not
/// f16 and k, of a convolution the input channels, that is no multiple of 8 run on scalar, whatever
/// FOVEA_PATH says; a path that the device lacks, and a wanted one that does not apply, is an Error
/// with the reason.
AttentionPath product_path(const vk::DeviceInfo& device, DType dtype, int64_t k,
                           AttentionPath wanted = AttentionPath::automatic);

/// y = x w with everything around it. Of a convolution: rows are output pixels, k is taps times
/// input channels.
struct MatrixProduct {
    std::string_view op;  ///< "gemm" or "conv2d"
    int64_t m, n, k;
    Tensor x, w, y, bias, residual, gate;
    Activation activation = Activation::none;
    struct Convolution {
        int64_t channels, height, width, rows, columns, stride, kernel;
    };
    std::optional<Convolution> convolution;
};

void dispatch_matrix_product(vk::Stream& stream, const MatrixProduct& product);

}  // namespace fovea
