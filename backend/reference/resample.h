#pragma once
/// Resampling of pictures (b, h, w, c): the specification of backend/ops/resample.h.

#include <cstddef>
#include <span>
#include <vector>

namespace fovea::reference {

inline std::vector<float> upsample_nearest(std::span<const float> x, size_t b, size_t h, size_t w,
                                           size_t c, size_t factor) {
    std::vector<float> y;
    y.reserve(x.size() * factor * factor);
    for (size_t n = 0; n < b; ++n)
        for (size_t row = 0; row < h * factor; ++row)
            for (size_t column = 0; column < w * factor; ++column)
                for (size_t k = 0; k < c; ++k)
                    y.push_back(x[((n * h + row / factor) * w + column / factor) * c + k]);
    return y;
}

}  // namespace fovea::reference
