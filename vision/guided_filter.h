#pragma once

#include <vector>

#include "vision/image.h"

namespace fovea {

/// A map drawn along a picture's edges: around every pixel the map is taken for a linear function
/// of the picture's colour, fitted over squares of 2·radius + 1 pixels (guided filter, He, Sun and
/// Tang, IEEE TPAMI 35, 2013). Colours that differ by less than √epsilon count as equal.
///   map      (height, width) of the picture
///   result   likewise, not limited to the range of the map
std::vector<float> guided_filter(const Image& picture, const std::vector<float>& map, int radius,
                                 float epsilon);

}  // namespace fovea
