#pragma once

#include <span>
#include <vector>

#include "backend/reference/activation.h"

namespace fovea::reference {

struct Conv2dShape {
    size_t batch, height, width, ci, co;
    size_t kernel = 3, stride = 1;
    size_t rows() const { return (height + stride - 1) / stride; }
    size_t columns() const { return (width + stride - 1) / stride; }
};

/// activation(x * w + bias + residual), zero padding kernel / 2; empty spans are absent parts.
/// x (batch, height, width, ci), w (kernel, kernel, ci, co), y (batch, rows, columns, co).
inline std::vector<float> conv2d(std::span<const float> x, std::span<const float> w,
                                 const Conv2dShape& s, std::span<const float> bias = {},
                                 Activation activation = Activation::none,
                                 std::span<const float> residual = {}) {
    std::vector<float> y;
    for (size_t b = 0; b < s.batch; ++b)
        for (size_t row = 0; row < s.rows(); ++row)
            for (size_t column = 0; column < s.columns(); ++column)
                for (size_t o = 0; o < s.co; ++o) {
                    double sum = bias.empty() ? 0 : bias[o];
                    for (size_t tap = 0; tap < s.kernel * s.kernel; ++tap) {
                        // Unsigned wrap-around makes −1 larger than any size.
                        const size_t py = row * s.stride + tap / s.kernel - s.kernel / 2;
                        const size_t px = column * s.stride + tap % s.kernel - s.kernel / 2;
                        if (py >= s.height || px >= s.width) continue;
                        for (size_t i = 0; i < s.ci; ++i)
                            sum += double{x[((b * s.height + py) * s.width + px) * s.ci + i]} *
                                   w[(tap * s.ci + i) * s.co + o];
                    }
                    if (!residual.empty()) sum += residual[y.size()];
                    y.push_back(static_cast<float>(activate(sum, activation)));
                }
    return y;
}

}  // namespace fovea::reference
