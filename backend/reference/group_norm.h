#pragma once
/// Group norm of (b, pixels, c): the specification of backend/ops/group_norm.h.

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "backend/reference/activation.h"

namespace fovea::reference {

/// weight and bias: (c) or empty
inline std::vector<float> group_norm(std::span<const float> x, size_t b, size_t c, size_t groups,
                                     std::span<const float> weight, std::span<const float> bias,
                                     float eps, Activation activation) {
    const size_t pixels = x.size() / (b * c), width = c / groups;
    const auto n = static_cast<double>(pixels * width);
    std::vector<float> y(x.size());
    for (size_t i = 0; i < b; ++i)
        for (size_t group = 0; group < groups; ++group) {
            const auto at = [&](size_t pixel, size_t k) {
                return (i * pixels + pixel) * c + group * width + k;
            };
            double mean = 0, variance = 0;
            for (size_t pixel = 0; pixel < pixels; ++pixel)
                for (size_t k = 0; k < width; ++k) mean += x[at(pixel, k)] / n;
            for (size_t pixel = 0; pixel < pixels; ++pixel)
                for (size_t k = 0; k < width; ++k)
                    variance += std::pow(x[at(pixel, k)] - mean, 2) / n;
            for (size_t pixel = 0; pixel < pixels; ++pixel)
                for (size_t k = 0; k < width; ++k) {
                    double v = (x[at(pixel, k)] - mean) / std::sqrt(variance + eps);
                    if (!weight.empty()) v *= weight[group * width + k];
                    if (!bias.empty()) v += bias[group * width + k];
                    y[at(pixel, k)] = static_cast<float>(activate(v, activation));
                }
        }
    return y;
}

}  // namespace fovea::reference
