#pragma once
/// The specification of backend/ops/mix.h.

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "backend/reference/activation.h"

namespace fovea::reference {

/// A batch of grids with heads of c channels (depthwise: one head), and a kernel's side.
struct MixShape {
    size_t batch, rows, columns, heads, c, kernel;
    size_t tokens() const { return batch * rows * columns; }
};

inline std::vector<float> depthwise_conv2d(std::span<const float> x, std::span<const float> w,
                                           const MixShape& s, std::span<const float> bias = {},
                                           Activation activation = Activation::none,
                                           std::span<const float> residual = {}) {
    std::vector<float> y;
    for (size_t b = 0; b < s.batch; ++b)
        for (size_t row = 0; row < s.rows; ++row)
            for (size_t column = 0; column < s.columns; ++column)
                for (size_t c = 0; c < s.c; ++c) {
                    double sum = bias.empty() ? 0 : bias[c];
                    for (size_t tap = 0; tap < s.kernel * s.kernel; ++tap) {
                        // Unsigned wrap-around makes −1 larger than any size.
                        const size_t py = row + tap / s.kernel - s.kernel / 2;
                        const size_t px = column + tap % s.kernel - s.kernel / 2;
                        if (py >= s.rows || px >= s.columns) continue;
                        sum += double{x[((b * s.rows + py) * s.columns + px) * s.c + c]} *
                               w[tap * s.c + c];
                    }
                    sum = activate(sum, activation);
                    if (!residual.empty()) sum += residual[y.size()];
                    y.push_back(static_cast<float>(sum));
                }
    return y;
}

/// First position of the window around one.
inline size_t window_start(size_t position, size_t kernel, size_t extent) {
    const auto start = static_cast<long>(position) - static_cast<long>(kernel / 2);
    return static_cast<size_t>(std::clamp(start, 0L, static_cast<long>(extent - kernel)));
}

/// logits (tokens, heads, kernel²), relative (heads, 2 kernel − 1, 2 kernel − 1), bias (kernel²)
inline std::vector<float> local_weights(std::span<const float> logits,
                                        std::span<const float> relative,
                                        std::span<const float> bias, const MixShape& s) {
    const size_t taps = s.kernel * s.kernel, side = 2 * s.kernel - 1;
    std::vector<float> y(s.tokens() * s.heads * taps);
    for (size_t token = 0; token < s.tokens(); ++token)
        for (size_t head = 0; head < s.heads; ++head) {
            const size_t row = token / s.columns % s.rows, column = token % s.columns;
            std::vector<double> weights;
            double sum = 0;
            for (size_t tap = 0; tap < taps; ++tap) {
                const size_t dy = window_start(row, s.kernel, s.rows) + tap / s.kernel - row;
                const size_t dx =
                    window_start(column, s.kernel, s.columns) + tap % s.kernel - column;
                weights.push_back(std::exp(
                    double{logits[(token * s.heads + head) * taps + tap]} +
                    relative[(head * side + dy + s.kernel - 1) * side + dx + s.kernel - 1] +
                    bias[tap]));
                sum += weights.back();
            }
            for (size_t tap = 0; tap < taps; ++tap)
                y[(token * s.heads + head) * taps + tap] = static_cast<float>(weights[tap] / sum);
        }
    return y;
}

/// v (tokens, heads, c), weights (tokens, heads, kernel²)
inline std::vector<float> local_mix(std::span<const float> v, std::span<const float> weights,
                                    const MixShape& s) {
    std::vector<float> y;
    for (size_t token = 0; token < s.tokens(); ++token)
        for (size_t head = 0; head < s.heads; ++head)
            for (size_t c = 0; c < s.c; ++c) {
                const size_t row = token / s.columns % s.rows, column = token % s.columns;
                double sum = 0;
                for (size_t tap = 0; tap < s.kernel * s.kernel; ++tap) {
                    const size_t py = window_start(row, s.kernel, s.rows) + tap / s.kernel;
                    const size_t px = window_start(column, s.kernel, s.columns) + tap % s.kernel;
                    const size_t from =
                        token / s.columns / s.rows * s.rows * s.columns + py * s.columns + px;
                    sum += double{weights[(token * s.heads + head) * s.kernel * s.kernel + tap]} *
                           v[(from * s.heads + head) * s.c + c];
                }
                y.push_back(static_cast<float>(sum));
            }
    return y;
}

}  // namespace fovea::reference
