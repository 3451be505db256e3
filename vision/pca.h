#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fovea {

/// The directions in which vectors differ most, and where each of them lies along these.
struct PrincipalComponents {
    std::vector<float> directions;  ///< (count, width), orthonormal, the largest variance first
    std::vector<float> variances;   ///< (count)
    std::vector<float> places;      ///< (vectors, count): of the vectors less their mean
};

/// Of (vectors, width) values, row-major; at most `width` components. The sign of a direction is
/// such that its largest entry is positive. Orthogonal iteration from fixed starts: the same bits
/// for the same values. Throws Error for fewer than two vectors or more components than `width`.
PrincipalComponents principal_components(std::span<const float> values, int64_t width, int count);

}  // namespace fovea
