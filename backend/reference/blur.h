#pragma once
/// Gaussian filter over tokens: the specification of backend/ops/blur.h.

#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace fovea::reference {

/// x (batch, frames · rows · columns, heads, head_dim); chosen (heads): 0 passes unchanged.
inline std::vector<float> blur_tokens(std::span<const float> x, size_t batch,
                                      const std::array<size_t, 3>& grid,
                                      std::span<const float> chosen, size_t head_dim,
                                      double sigma) {
    const auto [frames, rows, columns] = grid;
    const size_t token = chosen.size() * head_dim;
    const double falloff = std::isinf(sigma) ? 0 : 0.5 / (sigma * sigma);
    std::vector<float> y(x.begin(), x.end());
    for (size_t f = 0; f < batch * frames; ++f)
        for (size_t i = 0; i < rows * columns; ++i)
            for (size_t c = 0; c < token; ++c) {
                if (chosen[c / head_dim] == 0) continue;
                double sum = 0, weights = 0;
                for (size_t j = 0; j < rows * columns; ++j) {
                    const double dy =
                        static_cast<double>(i / columns) - static_cast<double>(j / columns);
                    const double dx =
                        static_cast<double>(i % columns) - static_cast<double>(j % columns);
                    const double weight = std::exp(-(dy * dy + dx * dx) * falloff);
                    sum += weight * x[(f * rows * columns + j) * token + c];
                    weights += weight;
                }
                y[(f * rows * columns + i) * token + c] = static_cast<float>(sum / weights);
            }
    return y;
}

}  // namespace fovea::reference
