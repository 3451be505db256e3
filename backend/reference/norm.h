#pragma once
/// Layer norm and RMS norm over rows of n elements: the specification of backend/ops/norm.h.

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace fovea::reference {

struct NormOptions {
    std::span<const float> weight, bias;  ///< (n) or empty
    std::span<const float> shift, scale;  ///< (batch, n) or empty
    float eps = 1e-6f;
};

inline std::vector<float> norm(std::span<const float> x, size_t n, bool rms, const NormOptions& o) {
    const size_t rows = x.size() / n;
    std::vector<float> y(x.size());
    for (size_t r = 0; r < rows; ++r) {
        const auto row = x.subspan(r * n, n);
        double mean = 0, variance = 0;
        if (!rms)
            for (const double value : row) mean += value / static_cast<double>(n);
        for (const double value : row)
            variance += (value - mean) * (value - mean) / static_cast<double>(n);
        for (size_t j = 0; j < n; ++j) {
            double v = (row[j] - mean) / std::sqrt(variance + o.eps);
            if (!o.weight.empty()) v *= o.weight[j];
            if (!o.bias.empty()) v += o.bias[j];
            if (!o.scale.empty()) v *= 1.0 + o.scale[r / (rows / (o.scale.size() / n)) * n + j];
            if (!o.shift.empty()) v += o.shift[r / (rows / (o.shift.size() / n)) * n + j];
            y[r * n + j] = static_cast<float>(v);
        }
    }
    return y;
}

inline std::vector<float> layer_norm(std::span<const float> x, size_t n,
                                     const NormOptions& options = {}) {
    return norm(x, n, false, options);
}

inline std::vector<float> rms_norm(std::span<const float> x, size_t n,
                                   const NormOptions& options = {}) {
    return norm(x, n, true, options);
}

}  // namespace fovea::reference
