#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "backend/reference/attention.h"

/// Partial results of attention put together; shares of it. The specification of
/// backend/ops/merge.h and backend/ops/range_mass.h.
namespace fovea::reference {

/// Each part has o (rows, d) and lse (rows).
inline AttentionResult merge(std::span<const AttentionResult> parts, size_t d) {
    AttentionResult result = parts[0];
    for (size_t row = 0; row < result.lse.size(); ++row) {
        double most = -std::numeric_limits<double>::infinity(), weights = 0;
        for (const auto& part : parts) most = std::max(most, double{part.lse[row]});
        std::vector<double> sum(d);
        for (const auto& part : parts) {
            if (std::isinf(part.lse[row])) continue;
            const double weight = std::exp(part.lse[row] - most);
            weights += weight;
            for (size_t c = 0; c < d; ++c) sum[c] += weight * part.o[row * d + c];
        }
        for (size_t c = 0; c < d; ++c)
            result.o[row * d + c] = weights > 0 ? static_cast<float>(sum[c] / weights) : 0;
        result.lse[row] = static_cast<float>(most + (weights > 0 ? std::log(weights) : 0));
    }
    return result;
}

inline std::vector<float> range_mass(std::span<const float> lse_range,
                                     std::span<const float> lse_all) {
    std::vector<float> mass;
    for (size_t i = 0; i < lse_all.size(); ++i)
        mass.push_back(std::isinf(lse_range[i])
                           ? 0
                           : static_cast<float>(std::exp(double{lse_range[i]} - lse_all[i])));
    return mass;
}

}  // namespace fovea::reference
