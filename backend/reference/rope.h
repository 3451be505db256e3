#pragma once
/// Rotary position embedding over (time, row, column): the specification of backend/ops/rope.h.

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace fovea::reference {

/// x: (anything, tokens, head_dim), tokens of a grid (frames, rows, columns). An axis with n dims
/// turns its pair j by position · theta^(−j / (n/2)); the dims after the three axes stay.
inline std::vector<float> rope(std::span<const float> x, size_t head_dim,
                               const std::array<int, 3>& axes, const std::array<int64_t, 3>& grid,
                               float theta) {
    std::vector<float> y(x.begin(), x.end());
    const auto tokens = static_cast<size_t>(grid[0] * grid[1] * grid[2]);
    for (size_t row = 0; row < x.size() / head_dim; ++row) {
        const auto token = static_cast<int64_t>(row % tokens);
        const std::array<int64_t, 3> position = {token / (grid[1] * grid[2]),
                                                 token / grid[2] % grid[1], token % grid[2]};
        size_t i = row * head_dim;
        for (size_t axis = 0; axis < 3; ++axis)
            for (int j = 0; j < axes[axis] / 2; ++j, i += 2) {
                const double angle = static_cast<double>(position[axis]) *
                                     std::pow(double{theta}, -j / (axes[axis] / 2.0));
                const double a = x[i], b = x[i + 1];
                y[i] = static_cast<float>(a * std::cos(angle) - b * std::sin(angle));
                y[i + 1] = static_cast<float>(a * std::sin(angle) + b * std::cos(angle));
            }
    }
    return y;
}

}  // namespace fovea::reference
