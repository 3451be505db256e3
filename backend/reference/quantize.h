#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

/// Symmetric int8 by blocks of rows: the specification of backend/ops/quantize.h.
namespace fovea::reference {

/// x (n, d) → (d). What is not finite counts as 0.
inline std::vector<double> mean_of_rows(std::span<const float> x, size_t d) {
    std::vector<double> mean(d);
    for (size_t i = 0; i < x.size(); ++i)
        if (std::isfinite(x[i])) mean[i % d] += x[i];
    for (double& value : mean) value /= static_cast<double>(x.size() / d);
    return mean;
}

struct Int8Blocks {
    std::vector<int8_t> values;  // (slots, columns)
    std::vector<double> scales;  // (slots / rows): values · scale ≈ x − mean
};

/// `tokens`: the row of x that each slot holds, or one beyond all for none; `rows` slots a block,
/// d padded to `columns` with 0. The scale makes a block's largest magnitude 127. An empty mean is
/// 0.
inline Int8Blocks int8_blocks(std::span<const float> x, size_t d, std::span<const uint32_t> tokens,
                              size_t rows, size_t columns, std::span<const double> mean = {}) {
    Int8Blocks blocks;
    blocks.values.resize(tokens.size() * columns);
    for (size_t first = 0; first < tokens.size(); first += rows) {
        std::vector<double> smooth(rows * columns);
        double largest = 0;
        for (size_t r = 0; r < rows; ++r) {
            if (tokens[first + r] >= x.size() / d) continue;
            for (size_t c = 0; c < d; ++c) {
                double& value = smooth[r * columns + c];
                value = double{x[tokens[first + r] * d + c]} - (mean.empty() ? 0 : mean[c]);
                largest = std::max(largest, std::abs(value));
            }
        }
        blocks.scales.push_back(largest / 127);
        if (largest == 0) continue;
        for (size_t i = 0; i < smooth.size(); ++i)
            blocks.values[first * columns + i] =
                static_cast<int8_t>(std::lround(smooth[i] / largest * 127));
    }
    return blocks;
}

}  // namespace fovea::reference
