#include "vision/linear.h"

#include <algorithm>

namespace fovea {

LinearPlace linear_place(double at, int length) {
    const double centre = std::clamp(at - 0.5, 0.0, length - 1.0);
    const auto first = static_cast<size_t>(centre);
    return {first, std::min(first + 1, static_cast<size_t>(length) - 1),
            centre - static_cast<double>(first)};
}

std::vector<LinearPlace> linear_places(int count, int length) {
    std::vector<LinearPlace> places;
    for (int i = 0; i < count; ++i)
        places.push_back(linear_place((i + 0.5) * length / count, length));
    return places;
}

}  // namespace fovea
