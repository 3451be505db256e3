#pragma once

#include "backend/ops/activation.h"
#include "backend/tensor.h"

namespace fovea {

/// Shape of the tiles of shaders/gemm/tile.glsl and the specialisation constants that follow.
struct Tile {
    uint32_t lanes, rows, columns;  ///< columns: of one lane
    uint32_t width;                 ///< elements a load
    bool broadcast;

    struct Epilogue {
        Activation activation;
        bool bias, residual, gate;
    };
    std::vector<uint32_t> constants(const Epilogue& epilogue) const;
    vk::Groups groups(const vk::DeviceInfo& info, int64_t m, int64_t n) const;
};

/// The tile for m rows, n columns and sums over k (multiples of it for a convolution).
Tile choose_tile(const vk::DeviceInfo& info, int64_t m, int64_t n, int64_t k);

}  // namespace fovea
