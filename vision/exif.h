#pragma once

#include <cstddef>
#include <span>

namespace fovea {

/// How a camera held the picture, from a JPEG's Exif block: 1 upright, 2 mirrored, 3 half a turn, 4
/// flipped, 5 to 8 the same with rows and columns exchanged (Exif 2.32, tag 0x0112). Anything
/// missing or malformed counts as 1.
int exif_orientation(std::span<const std::byte> jpeg);

}  // namespace fovea
