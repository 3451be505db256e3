#pragma once

#include <cstddef>
#include <span>

/// What the program must know of a JPEG file beside its pixels, which stb_image decodes.
/// Source: ITU-T T.81 (JPEG), annex B; Exif 2.32, section 4.
namespace fovea {

/// How a camera held the picture: 1 upright, 2 mirrored, 3 half a turn, 4 flipped, 5 to 8 the same
/// with rows and columns exchanged (tag 0x0112). Anything missing or malformed counts as 1.
int exif_orientation(std::span<const std::byte> jpeg);

/// False when a Huffman table claims more than 255 codes; 8-bit pictures need at most 176.
/// stb_image before 2.28 (Debian 12) writes past its tables above 256 and mistakes the last of 256
/// for its mark of long codes: no file may reach it without this check. Examines every place where
/// stb_image could begin to read a table; files that are no JPEG pass.
bool huffman_tables_fit(std::span<const std::byte> jpeg);

}  // namespace fovea
