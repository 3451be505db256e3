#pragma once

#include "backend/ops/activation.h"
#include "backend/tensor.h"

namespace fovea {

/// The scalar path of gemm and conv2d: shape of the tiles of shaders/gemm/tile.glsl and the
/// specialisation constants that follow.
struct Tile {
    uint32_t lanes, rows, columns;  ///< columns: of one lane
    uint32_t width, step;           ///< elements a load, of w and of x: 4 or 1
    bool software;                  ///< the modules for software Vulkan

    struct Epilogue {
        Activation activation;
        bool bias, residual, gate;
    };
    std::vector<uint32_t> constants(const Epilogue& epilogue) const;
    vk::Groups groups(const vk::DeviceInfo& info, int64_t m, int64_t n) const;
};

/// Whether the scalar kernels load as software Vulkan likes it: on CPUs, unless FOVEA_GEMM_LOADS
/// says gpu or software.
bool uses_software_loads(const vk::DeviceInfo& info);

/// The tile for m rows, n columns and sums over k (multiples of it for a convolution).
Tile choose_tile(const vk::DeviceInfo& info, int64_t m, int64_t n, int64_t k);

}  // namespace fovea
