#pragma once
/// Pictures (b, h, w, c) as tokens of p × p pixels: the specification of backend/ops/patches.h.

#include <cstddef>
#include <span>
#include <vector>

namespace fovea::reference {

inline std::vector<float> patchify(std::span<const float> x, size_t b, size_t h, size_t w, size_t c,
                                   size_t p) {
    std::vector<float> y;
    y.reserve(x.size());
    for (size_t n = 0; n < b; ++n)
        for (size_t row = 0; row < h; row += p)
            for (size_t column = 0; column < w; column += p)
                for (size_t k = 0; k < c; ++k)
                    for (size_t dy = 0; dy < p; ++dy)
                        for (size_t dx = 0; dx < p; ++dx)
                            y.push_back(x[((n * h + row + dy) * w + column + dx) * c + k]);
    return y;
}

}  // namespace fovea::reference
