#pragma once

#include <cstdint>

#include "backend/tensor.h"

namespace fovea {

/// Mean over the middle axis: (b, n, w) → (b, w).
Tensor mean_tokens(vk::Stream& stream, const Tensor& x);

/// Of the finite elements; all 0 when there is none.
struct Statistics {
    float min = 0, max = 0;
    double mean = 0, stddev = 0;
    int64_t nan = 0, inf = 0;  ///< counts
};

/// Waits. Tells a result that is NaN or blank from a good one.
Statistics statistics(vk::Stream& stream, const Tensor& x);

}  // namespace fovea
