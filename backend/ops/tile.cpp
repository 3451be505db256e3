#include "backend/ops/tile.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "backend/error.h"

namespace fovea {
namespace {

int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

}  // namespace

bool uses_software_loads(const vk::DeviceInfo& info) {
    const char* forced = std::getenv("FOVEA_GEMM_LOADS");
    if (!forced) return info.type == vk::DeviceType::cpu;
    const std::string_view loads = forced;
    require(loads == "gpu" || loads == "software",
            "[gemm] expected FOVEA_GEMM_LOADS gpu or software, found {}", loads);
    return loads == "software";
}

std::vector<uint32_t> Tile::constants(const Epilogue& epilogue) const {
    return {/*LANES=*/lanes,
            /*ROWS=*/rows,
            /*COLS=*/columns,
            /*WIDTH=*/width,
            /*STEP=*/step,
            /*ACTIVATION=*/static_cast<uint32_t>(epilogue.activation),
            /*BIAS=*/epilogue.bias,
            /*RESIDUAL=*/epilogue.residual,
            /*GATE=*/epilogue.gate};
}

vk::Groups Tile::groups(const vk::DeviceInfo& info, int64_t m, int64_t n) const {
    // Row tiles go on in z where y is full; those past the end repeat the last row.
    const int64_t x = divide_up(n, int64_t{lanes} * columns);
    const int64_t row_tiles = divide_up(m, rows);
    const int64_t z = divide_up(row_tiles, info.limits.workgroups[1]);
    const int64_t y = divide_up(row_tiles, z);
    require(x <= info.limits.workgroups[0] && z <= info.limits.workgroups[2],
            "[gemm] expected at most {} x {} tiles of columns and rows, found {} x {}",
            info.limits.workgroups[0],
            int64_t{info.limits.workgroups[1]} * info.limits.workgroups[2], x, row_tiles);
    return {static_cast<uint32_t>(x), static_cast<uint32_t>(y), static_cast<uint32_t>(z)};
}

Tile choose_tile(const vk::DeviceInfo& info, int64_t m, int64_t n, int64_t k) {
    const uint32_t width = n % 4 == 0 ? 4 : 1, step = k % 4 == 0 ? 4 : 1;
    if (uses_software_loads(info))
        return {.lanes = info.limits.subgroup_size,
                .rows = m > 16  ? 32u
                        : m > 8 ? 16u
                                : 8u,
                .columns = width == 4 || n > 8 ? 4u : 1u,
                .width = width,
                .step = step,
                .software = true};
    return {.lanes = std::max(info.limits.subgroup_size, 32u),
            .rows = m > 4 ? 8u : 4u,
            .columns = width == 4 || n > 32 ? 4u : 1u,
            .width = width,
            .step = step,
            .software = false};
}

}  // namespace fovea
