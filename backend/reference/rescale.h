#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

/// Rows scaled and something added: the specification of backend/ops/rescale.h.
namespace fovea::reference {

/// x and addend (rows, d), factor (rows).
inline std::vector<float> rescale(std::span<const float> x, std::span<const float> factor,
                                  std::span<const float> addend, float shift = 0,
                                  bool subtract = false) {
    const size_t d = x.size() / factor.size();
    std::vector<float> y;
    for (size_t i = 0; i < x.size(); ++i) {
        const float weight = std::clamp(factor[i / d] + shift, 0.0f, 1.0f);
        y.push_back(addend[i] + (subtract ? -weight : weight) * x[i]);
    }
    return y;
}

}  // namespace fovea::reference
