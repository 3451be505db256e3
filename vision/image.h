#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "vision/png_text.h"

/// Pictures in memory and on disk. Values are sRGB-encoded in [0, 1], as files and models have
/// them; nothing here works in linear light.
namespace fovea {

struct Image {
    int width = 0, height = 0;  // pixels
    std::vector<float> rgb;     // (height, width, 3)
};

/// Limits on what is read, made or written: 16384 pixels a side, 64 megapixels.
inline constexpr int kMaxImageSide = 16384;
inline constexpr size_t kMaxImagePixels = size_t{1} << 26;

/// Reads a PNG (8 or 16 bit) or JPEG. Transparent parts show white; a camera's Exif orientation is
/// applied. Throws Error naming the file and what it is when it is no such picture, damaged or
/// above the limits.
Image load_image(const std::filesystem::path& path);
/// The same from memory; `name` stands for the file in messages.
Image decode_image(std::span<const std::byte> bytes, const std::string& name);
/// How opaque each pixel is, (height, width) in [0, 1]; empty where all are. Throws Error as
/// load_image does.
std::vector<float> load_opacity(const std::filesystem::path& path);

/// Writes an 8-bit RGB PNG; values are clamped to [0, 1] (NaN becomes 0) and rounded to the nearest
/// of 255 steps. The text travels in the file (see png_text.h). Atomic: see write_file. Throws
/// Error.
void save_png(const std::filesystem::path& path, const Image& image, const PngText& text = {});
/// The same with opacity, (height, width) in [0, 1], rounded likewise.
void save_png(const std::filesystem::path& path, const Image& image,
              const std::vector<float>& opacity, const PngText& text = {});
/// The first to memory.
std::vector<std::byte> encode_png(const Image& image, const PngText& text = {});
/// The text of a PNG file. Throws Error.
PngText read_png_text(const std::filesystem::path& path);

/// Bilinear when enlarging; when shrinking, the triangle filter widened to the scale, so that every
/// pixel counts (PyTorch's antialiased bilinear interpolation, Pillow's BILINEAR, but for the
/// outermost pixels).
Image resize(const Image& image, int width, int height);

/// Peak signal-to-noise ratio in dB for a peak of 1; infinity for equal pictures. Throws Error when
/// sizes differ.
double psnr(const Image& a, const Image& b);

/// Structural similarity of luma, the mean over all pixels with windows of Gaussian weight, 11
/// pixels wide, σ = 1.5, inside the picture (Wang et al., IEEE Transactions on Image Processing 13,
/// 2004); 1 for equal pictures. Throws Error when sizes differ or a side is shorter than a window.
double ssim(const Image& a, const Image& b);

/// A contact sheet: rows of `columns` pictures on white, 2 pixels apart; every cell is as large as
/// the largest picture, smaller ones stand in its upper left.
Image tile_images(std::span<const Image> images, int columns);

}  // namespace fovea
