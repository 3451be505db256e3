#pragma once

#include <cstddef>
#include <vector>

/// Maps drawn in another resolution, linearly between the centres of their pixels.
namespace fovea {

/// Of a pixel along one axis: the two of the map's pixels around its centre, and the second's
/// share. Beyond the outermost centres the outermost pixel.
struct LinearPlace {
    size_t first = 0, second = 0;
    double share = 0;
};

/// at: in the map's pixels, the first one's centre is 0.5
LinearPlace linear_place(double at, int length);

/// Of `count` pixels that cover `length` pixels of the map.
std::vector<LinearPlace> linear_places(int count, int length);

/// The value of a map, rows of `width`, between four of its pixels.
template <typename T>
double sample(const std::vector<T>& map, size_t width, const LinearPlace& x, const LinearPlace& y) {
    const auto along = [&](size_t row) {
        const double first = map[row * width + x.first];
        return first + x.share * (map[row * width + x.second] - first);
    };
    const double first = along(y.first);
    return first + y.share * (along(y.second) - first);
}

}  // namespace fovea
