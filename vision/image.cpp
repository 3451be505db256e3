#include "vision/image.h"

#include <stb_image.h>
#include <stb_image_write.h>
#if __has_include(<stb_image_resize.h>)
#include <stb_image_resize.h>
#else
#include <stb_image_resize2.h>
#endif

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include "backend/error.h"
#include "vision/file.h"
#include "vision/jpeg.h"

namespace fovea {

namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 29;

bool within_limits(int64_t width, int64_t height) {
    return width >= 1 && height >= 1 && width <= kMaxImageSide && height <= kMaxImageSide &&
           static_cast<size_t>(width * height) <= kMaxImagePixels;
}

size_t pixel_count(const Image& image) {
    return static_cast<size_t>(image.width) * static_cast<size_t>(image.height);
}

void check(const char* op, const Image& image) {
    require(within_limits(image.width, image.height),
            "[{}] expected a picture of 1 to {} pixels a side, at most {} in all, found {}x{}", op,
            kMaxImageSide, kMaxImagePixels, image.width, image.height);
    require(image.rgb.size() == 3 * pixel_count(image),
            "[{}] expected {} values for {}x{} pixels, found {}", op, 3 * pixel_count(image),
            image.width, image.height, image.rgb.size());
}

/// The picture as its camera's owner saw it; orientation as exif_orientation gives it.
Image upright(Image image, int orientation) {
    if (orientation == 1) return image;
    const bool exchanged = orientation >= 5;
    Image result{.width = exchanged ? image.height : image.width,
                 .height = exchanged ? image.width : image.height,
                 .rgb = std::vector<float>(image.rgb.size())};
    const bool from_right =
        orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool from_bottom =
        orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    for (int y = 0; y < result.height; ++y) {
        for (int x = 0; x < result.width; ++x) {
            int from_x = exchanged ? y : x, from_y = exchanged ? x : y;
            if (from_right) from_x = image.width - 1 - from_x;
            if (from_bottom) from_y = image.height - 1 - from_y;
            const size_t from = 3 * (static_cast<size_t>(from_y) * image.width + from_x);
            const size_t to = 3 * (static_cast<size_t>(y) * result.width + x);
            std::copy_n(&image.rgb[from], 3, &result.rgb[to]);
        }
    }
    return result;
}

struct Decoded {
    int width = 0, height = 0;
    std::unique_ptr<stbi_us, void (*)(void*)> rgba{nullptr, stbi_image_free};
};

Decoded decode(std::span<const std::byte> bytes, const std::string& name) {
    require(bytes.size() <= kMaxFileBytes, "[image] {} has {} bytes, expected at most {}", name,
            bytes.size(), kMaxFileBytes);
    const auto* data = reinterpret_cast<const stbi_uc*>(bytes.data());
    const int size = static_cast<int>(bytes.size());
    require(huffman_tables_fit(bytes), "[image] {} is a JPEG picture, but damaged: Huffman table",
            name);
    Decoded image;
    int channels = 0;
    require(stbi_info_from_memory(data, size, &image.width, &image.height, &channels) == 1,
            "[image] expected a PNG or JPEG picture, found {} to be {}", name, file_kind(bytes));
    require(within_limits(image.width, image.height),
            "[image] expected at most {} pixels a side and {} in all, found {} to have {}x{}",
            kMaxImageSide, kMaxImagePixels, name, image.width, image.height);

    // 16 bit for all: v * 257 / 65535 is v / 255, so 8-bit pictures lose nothing.
    image.rgba.reset(
        stbi_load_16_from_memory(data, size, &image.width, &image.height, &channels, 4));
    require(image.rgba != nullptr, "[image] {} is {}, but damaged: {}", name, file_kind(bytes),
            stbi_failure_reason());
    require(within_limits(image.width, image.height), "[image] {} is damaged: two sizes", name);
    return image;
}

uint8_t to_byte(float value) {
    const float clamped = value > 0 ? std::min(value, 1.0f) : 0.0f;  // NaN too
    return static_cast<uint8_t>(clamped * 255.0f + 0.5f);
}

std::vector<std::byte> encode(int width, int height, int channels,
                              const std::vector<uint8_t>& pixels, const PngText& text) {
    std::vector<std::byte> png;
    const auto append = [](void* out, void* data, int size) {
        const auto* bytes = static_cast<const std::byte*>(data);
        static_cast<std::vector<std::byte>*>(out)->assign(bytes, bytes + size);
    };
    const int done = stbi_write_png_to_func(append, &png, width, height, channels, pixels.data(),
                                            channels * width);
    require(done != 0, "[save_png] out of memory for {}x{} pixels", width, height);
    return text.empty() ? png : insert_png_text(png, text);
}

}  // namespace

Image decode_image(std::span<const std::byte> bytes, const std::string& name) {
    const Decoded decoded = decode(bytes, name);
    Image image{.width = decoded.width, .height = decoded.height, .rgb = {}};
    image.rgb.resize(3 * pixel_count(image));
    for (size_t i = 0; i < pixel_count(image); ++i) {
        const stbi_us* pixel = decoded.rgba.get() + 4 * i;
        const float alpha = static_cast<float>(pixel[3]) / 65535.0f;
        for (size_t c = 0; c < 3; ++c) {
            const float value = static_cast<float>(pixel[c]) / 65535.0f;
            image.rgb[3 * i + c] = pixel[3] == 65535 ? value : value * alpha + (1.0f - alpha);
        }
    }
    return upright(std::move(image), exif_orientation(bytes));
}

Image load_image(const std::filesystem::path& path) {
    return decode_image(read_file(path, kMaxFileBytes), path.string());
}

std::vector<float> load_opacity(const std::filesystem::path& path) {
    const Decoded decoded = decode(read_file(path, kMaxFileBytes), path.string());
    std::vector<float> opacity(static_cast<size_t>(decoded.width) *
                               static_cast<size_t>(decoded.height));
    bool transparent = false;
    for (size_t i = 0; i < opacity.size(); ++i) {
        const stbi_us alpha = decoded.rgba.get()[4 * i + 3];
        opacity[i] = static_cast<float>(alpha) / 65535.0f;
        transparent |= alpha != 65535;
    }
    return transparent ? opacity : std::vector<float>{};
}

std::vector<std::byte> encode_png(const Image& image, const PngText& text) {
    check("save_png", image);
    std::vector<uint8_t> pixels(image.rgb.size());
    std::transform(image.rgb.begin(), image.rgb.end(), pixels.begin(), to_byte);
    return encode(image.width, image.height, 3, pixels, text);
}

void save_png(const std::filesystem::path& path, const Image& image, const PngText& text) {
    write_file(path, encode_png(image, text));
}

void save_png(const std::filesystem::path& path, const Image& image,
              const std::vector<float>& opacity, const PngText& text) {
    check("save_png", image);
    require(opacity.size() == pixel_count(image), "[save_png] opacity of {} pixels, expected {}",
            opacity.size(), pixel_count(image));
    std::vector<uint8_t> pixels;
    pixels.reserve(4 * opacity.size());
    for (size_t i = 0; i < opacity.size(); ++i) {
        for (size_t c = 0; c < 3; ++c) pixels.push_back(to_byte(image.rgb[3 * i + c]));
        pixels.push_back(to_byte(opacity[i]));
    }
    write_file(path, encode(image.width, image.height, 4, pixels, text));
}

PngText read_png_text(const std::filesystem::path& path) {
    return parse_png_text(read_file(path, kMaxFileBytes), path.string());
}

Image resize(const Image& image, int width, int height) {
    check("resize", image);
    require(within_limits(width, height),
            "[resize] expected 1 to {} pixels a side, at most {} in all, found {}x{}",
            kMaxImageSide, kMaxImagePixels, width, height);
    Image result{.width = width, .height = height, .rgb = {}};
    result.rgb.resize(3 * pixel_count(result));
#ifdef STBIR_INCLUDE_STB_IMAGE_RESIZE_H
    const bool done = stbir_resize_float_generic(
                          image.rgb.data(), image.width, image.height, 0, result.rgb.data(), width,
                          height, 0, 3, STBIR_ALPHA_CHANNEL_NONE, 0, STBIR_EDGE_CLAMP,
                          STBIR_FILTER_TRIANGLE, STBIR_COLORSPACE_LINEAR, nullptr) == 1;
#else
    const bool done = stbir_resize(image.rgb.data(), image.width, image.height, 0,
                                   result.rgb.data(), width, height, 0, STBIR_RGB, STBIR_TYPE_FLOAT,
                                   STBIR_EDGE_CLAMP, STBIR_FILTER_TRIANGLE) != nullptr;
#endif
    require(done, "[resize] out of memory for {}x{} pixels", width, height);
    return result;
}

double psnr(const Image& a, const Image& b) {
    check("psnr", a);
    check("psnr", b);
    require(a.width == b.width && a.height == b.height,
            "[psnr] expected pictures of one size, found {}x{} and {}x{}", a.width, a.height,
            b.width, b.height);
    double sum = 0;
    for (size_t i = 0; i < a.rgb.size(); ++i) {
        const double difference = static_cast<double>(a.rgb[i]) - b.rgb[i];
        sum += difference * difference;
    }
    if (sum == 0) return std::numeric_limits<double>::infinity();
    return -10 * std::log10(sum / static_cast<double>(a.rgb.size()));
}

double ssim(const Image& a, const Image& b) {
    constexpr int kWindow = 11;
    require(a.width == b.width && a.height == b.height && a.width >= kWindow && a.height >= kWindow,
            "[ssim] two pictures of one size and at least {0}×{0} expected, found {1}×{2} and "
            "{3}×{4}",
            kWindow, a.width, a.height, b.width, b.height);
    std::array<double, kWindow> weights{};
    double all = 0;
    for (int i = 0; i < kWindow; ++i) all += weights[i] = std::exp(-(i - 5) * (i - 5) / 4.5);
    for (double& weight : weights) weight /= all;
    const auto luma = [](const Image& x, size_t i) {
        return 0.299 * x.rgb[3 * i] + 0.587 * x.rgb[3 * i + 1] + 0.114 * x.rgb[3 * i + 2];
    };
    // Weighted means of a, b, a², b² and ab: along rows, then along columns.
    using Moments = std::array<double, 5>;
    const int width = a.width - kWindow + 1;
    std::vector<Moments> rows(static_cast<size_t>(width) * static_cast<size_t>(a.height));
    for (int y = 0; y < a.height; ++y) {
        std::vector<Moments> line;
        for (int x = 0; x < a.width; ++x) {
            const auto at =
                static_cast<size_t>(y) * static_cast<size_t>(a.width) + static_cast<size_t>(x);
            const double p = luma(a, at), q = luma(b, at);
            line.push_back({p, q, p * p, q * q, p * q});
        }
        for (int x = 0; x < width; ++x)
            for (int i = 0; i < kWindow; ++i)
                for (size_t m = 0; m < 5; ++m)
                    rows[static_cast<size_t>(y * width + x)][m] +=
                        weights[i] * line[static_cast<size_t>(x + i)][m];
    }
    double sum = 0, count = 0;
    for (int y = 0; y + kWindow <= a.height; ++y)
        for (int x = 0; x < width; ++x) {
            Moments m{};
            for (int i = 0; i < kWindow; ++i)
                for (size_t j = 0; j < 5; ++j)
                    m[j] += weights[i] * rows[static_cast<size_t>((y + i) * width + x)][j];
            constexpr double c1 = 0.01 * 0.01, c2 = 0.03 * 0.03;  // of a range of 1
            const double means = m[0] * m[1], squares = m[0] * m[0] + m[1] * m[1];
            sum += (2 * means + c1) * (2 * (m[4] - means) + c2) /
                   ((squares + c1) * (m[2] + m[3] - squares + c2));
            ++count;
        }
    return sum / count;
}

Image tile_images(std::span<const Image> images, int columns) {
    constexpr int kGap = 2;
    require(!images.empty() && columns >= 1,
            "[tile_images] expected at least one picture and one column, found {} and {}",
            images.size(), columns);
    int cell_width = 0, cell_height = 0;
    for (const Image& image : images) {
        check("tile_images", image);
        cell_width = std::max(cell_width, image.width);
        cell_height = std::max(cell_height, image.height);
    }
    const int64_t across = std::min<int64_t>(columns, static_cast<int64_t>(images.size()));
    const int64_t rows = (static_cast<int64_t>(images.size()) + across - 1) / across;
    const int64_t width = across * (cell_width + kGap) - kGap;
    const int64_t height = rows * (cell_height + kGap) - kGap;
    require(within_limits(width, height),
            "[tile_images] the sheet would be {}x{} pixels, too large", width, height);

    Image sheet{.width = static_cast<int>(width), .height = static_cast<int>(height), .rgb = {}};
    sheet.rgb.assign(3 * pixel_count(sheet), 1.0f);
    for (size_t i = 0; i < images.size(); ++i) {
        const Image& image = images[i];
        const size_t left = i % across * (cell_width + kGap),
                     top = i / across * (cell_height + kGap);
        const size_t row_values = 3 * static_cast<size_t>(image.width);
        for (size_t y = 0; y < static_cast<size_t>(image.height); ++y)
            std::copy_n(&image.rgb[y * row_values], row_values,
                        &sheet.rgb[3 * ((top + y) * sheet.width + left)]);
    }
    return sheet;
}

}  // namespace fovea
