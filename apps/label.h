#pragma once

#include <array>
#include <string_view>

#include "vision/image.h"

namespace fovea::apps {

using Color = std::array<float, 3>;  ///< sRGB in [0, 1]

constexpr int kGlyphWidth = 6, kGlyphHeight = 9;  ///< pixels at scale 1, with the gaps

/// A white picture.
Image paper(int width, int height);

/// `part` with its upper left at (x, y); it lies inside.
void paste(Image& image, const Image& part, int x, int y);

/// Writes letters, digits and . , : % + - = into a picture, capitals as small letters, other
/// characters as gaps; (x, y) is the upper left. What lies outside is cut.
void draw_label(Image& image, int x, int y, std::string_view text, int scale, const Color& color);

}  // namespace fovea::apps
