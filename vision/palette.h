#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

/// Few colours for many: boxes of colours are split, always the one with the largest squared error,
/// at the mean of the axis along which it spreads most (Wan, Wong, Prusinkiewicz, "An algorithm for
/// multidimensional data clustering", 1988).
namespace fovea {

using Color = std::array<uint8_t, 3>;

class Palette {
  public:
    /// At most `most` colours, 1 to 256, for 8-bit RGB pixels. Few enough colours are kept exactly.
    Palette(std::span<const uint8_t> rgb, size_t most);

    const std::vector<Color>& colors() const { return colors_; }

    /// For every pixel the index of the nearest colour, after ordered dither (Bayer's 8×8 pattern)
    /// unless all colours are kept: the pattern stands still, so what stands still does not
    /// flicker.
    std::vector<uint8_t> indices(std::span<const uint8_t> rgb, int width) const;

  private:
    std::vector<Color> colors_;
    bool exact_ = false;
};

}  // namespace fovea
