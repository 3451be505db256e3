#pragma once
/// Softmax over rows of n elements: the specification of backend/ops/softmax.h.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace fovea::reference {

/// A row of nothing but −∞ gives 0.
inline std::vector<float> softmax(std::span<const float> x, size_t n) {
    std::vector<float> y(x.size(), 0);
    for (size_t base = 0; base < x.size(); base += n) {
        const auto row = x.subspan(base, n);
        const double most = *std::max_element(row.begin(), row.end());
        if (most == -std::numeric_limits<double>::infinity()) continue;
        double sum = 0;
        for (const double value : row) sum += std::exp(value - most);
        for (size_t j = 0; j < n; ++j)
            y[base + j] = static_cast<float>(std::exp(row[j] - most) / sum);
    }
    return y;
}

}  // namespace fovea::reference
