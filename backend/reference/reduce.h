#pragma once
/// Means and statistics: the specification of backend/ops/reduce.h.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace fovea::reference {

/// (b, n, w) → (b, w)
inline std::vector<float> mean_tokens(std::span<const float> x, size_t b, size_t n, size_t w) {
    std::vector<float> y;
    for (size_t i = 0; i < b; ++i)
        for (size_t j = 0; j < w; ++j) {
            double sum = 0;
            for (size_t t = 0; t < n; ++t) sum += x[(i * n + t) * w + j];
            y.push_back(static_cast<float>(sum / static_cast<double>(n)));
        }
    return y;
}

struct Statistics {
    float min = 0, max = 0;
    double mean = 0, stddev = 0;  ///< of the population
    int64_t nan = 0, inf = 0;
};

inline Statistics statistics(std::span<const float> x) {
    Statistics s;
    std::vector<double> finite;
    for (const float value : x) {
        s.nan += std::isnan(value);
        s.inf += std::isinf(value);
        if (std::isfinite(value)) finite.push_back(value);
    }
    if (finite.empty()) return s;
    const auto n = static_cast<double>(finite.size());
    s.min = static_cast<float>(*std::min_element(finite.begin(), finite.end()));
    s.max = static_cast<float>(*std::max_element(finite.begin(), finite.end()));
    for (const double value : finite) s.mean += value / n;
    double variance = 0;
    for (const double value : finite) variance += (value - s.mean) * (value - s.mean) / n;
    s.stddev = std::sqrt(variance);
    return s;
}

}  // namespace fovea::reference
