#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

/// Text inside PNG files: the prompt and settings a picture was made with travel with it. ASCII
/// goes into tEXt chunks, which every reader knows, anything else in UTF-8 into uncompressed iTXt
/// chunks. Source: PNG specification, https://www.w3.org/TR/png-3/, sections 5 and 11.3.3.
namespace fovea {

using PngText = std::map<std::string, std::string>;  // keyword -> text, both UTF-8

/// The PNG with one chunk per entry after its IHDR. Throws Error when the bytes are no PNG, a
/// keyword is not 1 to 79 printable ASCII characters without outer or double spaces, or a text is
/// not UTF-8 or holds a zero byte.
std::vector<std::byte> insert_png_text(std::span<const std::byte> png, const PngText& text);

/// The tEXt and uncompressed iTXt entries; of equal keywords the first. Compressed ones are left
/// out, as are entries whose text is not what the format demands. Throws Error naming `name` when
/// the chunks are damaged or no PNG.
PngText parse_png_text(std::span<const std::byte> png, const std::string& name);

}  // namespace fovea
