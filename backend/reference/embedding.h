#pragma once
/// Rows of a table by number: the specification of backend/ops/embedding.h.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace fovea::reference {

/// table (v, width); an id outside of it gives NaN.
inline std::vector<float> embedding(std::span<const int32_t> ids, std::span<const float> table,
                                    size_t width) {
    std::vector<float> y;
    for (const int32_t id : ids)
        for (size_t j = 0; j < width; ++j) {
            const bool inside = id >= 0 && static_cast<size_t>(id) < table.size() / width;
            y.push_back(inside ? table[static_cast<size_t>(id) * width + j]
                               : std::numeric_limits<float>::quiet_NaN());
        }
    return y;
}

}  // namespace fovea::reference
