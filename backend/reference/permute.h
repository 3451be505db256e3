#pragma once
/// Reordered axes: the specification of backend/ops/permute.h.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace fovea::reference {

/// Axis k of the result is axis axes[k] of x.
inline std::vector<float> permute(std::span<const float> x, const std::vector<int64_t>& shape,
                                  const std::vector<int>& axes) {
    const size_t rank = shape.size();
    std::vector<float> y(x.size());
    std::vector<int64_t> at(rank, 0);  // coordinates in x
    for (const float value : x) {
        int64_t to = 0;
        for (size_t k = 0; k < rank; ++k) {
            const auto axis = static_cast<size_t>(axes[k]);
            to = to * shape[axis] + at[axis];
        }
        y[static_cast<size_t>(to)] = value;
        for (size_t k = rank; k-- > 0;) {
            if (++at[k] < shape[k]) break;
            at[k] = 0;
        }
    }
    return y;
}

}  // namespace fovea::reference
