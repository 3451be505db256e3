#pragma once

#include <array>
#include <vector>

#include "vision/image.h"

namespace fovea {

/// A map as a function of a picture's colour that changes from place to place: around every pixel
/// the map is taken for a linear function of the colour, fitted over squares of 2·radius + 1 pixels
/// (guided filter, He, Sun and Tang, IEEE TPAMI 35, 2013). Colours that differ by less than
/// √epsilon count as equal.
class GuidedMap {
  public:
    /// map: (height, width) of the picture
    GuidedMap(const Image& picture, const std::vector<float>& map, int radius, float epsilon);
    /// The map, (height, width) of this picture, not limited to the range of the map: the same
    /// picture in any resolution (fast guided filter, He and Sun, arXiv 1505.00996).
    std::vector<float> draw(const Image& picture) const;

  private:
    int width_, height_;
    std::array<std::vector<double>, 4> line_;  ///< of each pixel: slopes, then what is left
};

/// A map drawn along the edges of its picture.
std::vector<float> guided_filter(const Image& picture, const std::vector<float>& map, int radius,
                                 float epsilon);

}  // namespace fovea
