#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vision/video.h"

/// The formats of video.h in memory, one source file each.
namespace fovea {

/// 8-bit RGB, row by row, as save_png() rounds it.
std::vector<uint8_t> rgb_bytes(const Image& image);
/// The reverse; `stride` bytes from row to row.
Image image_of(const uint8_t* rgb, int width, int height, size_t stride);

/// Throws Error naming `name` where a clip that is read grows beyond the limits.
void require_room(const std::string& name, size_t frames, int width, int height);

/// `encoded_as` receives the codec's name.
std::vector<std::byte> encode_mp4(const Clip& clip, std::string& encoded_as);
/// Any container and codec of libavformat and libavcodec, GIF among them (without its comment).
Clip decode_libav(std::span<const std::byte> bytes, const std::string& name);

std::vector<std::byte> encode_webp(const Clip& clip);
Clip decode_webp(std::span<const std::byte> bytes, const std::string& name);

/// One palette for all frames.
std::vector<std::byte> encode_gif(const Clip& clip);
/// The first comment before the first picture; empty: none.
std::string gif_comment(std::span<const std::byte> gif);

}  // namespace fovea
