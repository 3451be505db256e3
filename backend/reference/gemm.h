#pragma once

#include <span>
#include <vector>

#include "backend/reference/activation.h"

namespace fovea::reference {

/// y = residual + gate * activation(x w + bias); empty spans are absent parts. x (m, k), w (k, n),
/// bias (n), gate (batch, n), residual and y (m, n).
inline std::vector<float> gemm(std::span<const float> x, std::span<const float> w, size_t m,
                               size_t n, size_t k, std::span<const float> bias = {},
                               Activation activation = Activation::none,
                               std::span<const float> gate = {},
                               std::span<const float> residual = {}) {
    std::vector<float> y(m * n);
    const size_t batch = gate.empty() ? 1 : gate.size() / n;
    for (size_t row = 0; row < m; ++row) {
        for (size_t column = 0; column < n; ++column) {
            double sum = bias.empty() ? 0 : bias[column];
            for (size_t i = 0; i < k; ++i) sum += double{x[row * k + i]} * w[i * n + column];
            sum = activate(sum, activation);
            if (!gate.empty()) sum *= gate[row / (m / batch) * n + column];
            if (!residual.empty()) sum += residual[row * n + column];
            y[row * n + column] = static_cast<float>(sum);
        }
    }
    return y;
}

}  // namespace fovea::reference
