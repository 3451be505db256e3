#include "vision/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stb_image_write.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "backend/error.h"
#include "tests/vision/temporary_folder.h"
#include "vision/file.h"

namespace fovea {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Random multiples of 1/255: what an 8-bit file can hold exactly.
Image random_image(int width, int height, unsigned seed = 1) {
    std::mt19937 random(seed);
    Image image{.width = width, .height = height, .rgb = {}};
    for (int i = 0; i < 3 * width * height; ++i)
        image.rgb.push_back(static_cast<float>(random() % 256) / 255.0f);
    return image;
}

/// One grey row.
Image grey_row(const std::vector<float>& values) {
    Image image{.width = static_cast<int>(values.size()), .height = 1, .rgb = {}};
    for (const float value : values) image.rgb.insert(image.rgb.end(), 3, value);
    return image;
}

std::vector<float> red(const Image& image) {
    std::vector<float> values;
    for (size_t i = 0; i < image.rgb.size(); i += 3) values.push_back(image.rgb[i]);
    return values;
}

void append(void* out, void* data, int size) {
    const auto* bytes = static_cast<const std::byte*>(data);
    auto* file = static_cast<std::vector<std::byte>*>(out);
    file->insert(file->end(), bytes, bytes + size);
}

std::vector<std::byte> jpeg_of(const Image& image) {
    std::vector<uint8_t> pixels;
    for (const float value : image.rgb) pixels.push_back(static_cast<uint8_t>(value * 255 + 0.5f));
    std::vector<std::byte> file;
    stbi_write_jpg_to_func(append, &file, image.width, image.height, 3, pixels.data(), 100);
    return file;
}

std::vector<std::byte> to_bytes(std::string_view text) {
    std::vector<std::byte> bytes(text.size());
    std::memcpy(bytes.data(), text.data(), text.size());
    return bytes;
}

std::string refusal(std::span<const std::byte> bytes) {
    try {
        decode_image(bytes, "x.png");
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("x.png"));
        return error.what();
    }
    return "accepted";
}

TEST(Image, png_keeps_every_value) {
    const TemporaryFolder folder;
    for (const auto& [width, height] : {std::pair{1, 1}, {7, 5}, {64, 33}}) {
        const Image image = random_image(width, height);
        save_png(folder / "a.png", image);
        const Image loaded = load_image(folder / "a.png");
        EXPECT_EQ(loaded.width, width);
        EXPECT_EQ(loaded.height, height);
        EXPECT_EQ(loaded.rgb, image.rgb);
    }
    EXPECT_EQ(folder.file_count(), 1u);
}

TEST(Image, saving_clamps_and_rounds) {
    const float inf = std::numeric_limits<float>::infinity();
    const Image image =
        grey_row({-1, 2, std::nanf(""), inf, -inf, 0.4f / 255, 0.6f / 255, 254.6f / 255});
    const Image saved = decode_image(encode_png(image), "memory");
    EXPECT_THAT(red(saved), ElementsAre(0, 1, 0, 1, 0, 0, 1.0f / 255, 1));
}

TEST(Image, transparent_parts_show_white) {
    const uint8_t rgba[] = {255, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 51};
    std::vector<std::byte> file;
    stbi_write_png_to_func(append, &file, 3, 1, 4, rgba, 12);
    const Image image = decode_image(file, "memory");
    const std::vector<float> expected = {1, 0, 0, 1, 1, 1, 0.8f, 0.8f, 0.8f};
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(image.rgb[i], expected[i], 1e-6) << i;

    const uint8_t grey_alpha[] = {0, 255, 0, 0};
    file.clear();
    stbi_write_png_to_func(append, &file, 2, 1, 2, grey_alpha, 4);
    EXPECT_THAT(red(decode_image(file, "memory")), ElementsAre(0, 1));
}

/// 1x1, 16-bit RGB (0x8000, 0x0001, 0xffff), made with Python's zlib.
TEST(Image, reads_sixteen_bit_png) {
    const auto file =
        to_bytes(std::string_view("\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52"
                                  "\x00\x00\x00\x01\x00\x00\x00\x01\x10\x02\x00\x00\x00\xc0\xe7\x8f"
                                  "\x9d\x00\x00\x00\x0f\x49\x44\x41\x54\x78\x9c\x63\x68\x60\x60\x60"
                                  "\xfc\xff\x1f\x00\x06\x07\x02\x80\x4f\xe0\x8d\x2a\x00\x00\x00\x00"
                                  "\x49\x45\x4e\x44\xae\x42\x60\x82",
                                  72));
    const Image image = decode_image(file, "memory");
    EXPECT_THAT(image.rgb, ElementsAre(0x8000 / 65535.0f, 1 / 65535.0f, 1.0f));
}

TEST(Image, reads_jpeg) {
    Image image{.width = 16, .height = 8, .rgb = {}};
    for (int i = 0; i < 16 * 8; ++i) image.rgb.insert(image.rgb.end(), {0.8f, 0.4f, 0.2f});
    const Image loaded = decode_image(jpeg_of(image), "memory");
    EXPECT_EQ(loaded.width, 16);
    EXPECT_GT(psnr(image, loaded), 40);
}

TEST(Image, camera_orientation_is_applied) {
    // Four flat 16x16 quarters: 0 1 / 2 3 by brightness.
    const std::vector<float> level = {0.0f, 0.3f, 0.6f, 1.0f};
    Image image{.width = 32, .height = 48, .rgb = {}};
    for (int y = 0; y < 48; ++y)
        for (int x = 0; x < 32; ++x)
            image.rgb.insert(image.rgb.end(), 3, level[(y / 24 * 2) + x / 16]);
    // What stands upper left, upper right, lower left, lower right after turning (Exif 2.32, figure
    // 4).
    const std::vector<std::array<int, 4>> expected = {{0, 1, 2, 3}, {1, 0, 3, 2}, {3, 2, 1, 0},
                                                      {2, 3, 0, 1}, {0, 2, 1, 3}, {2, 0, 3, 1},
                                                      {3, 1, 2, 0}, {1, 3, 0, 2}};
    const std::vector<std::byte> plain = jpeg_of(image);
    for (int orientation = 1; orientation <= 8; ++orientation) {
        for (const bool big_endian : {false, true}) {
            const char number = static_cast<char>(orientation);
            std::string block =
                big_endian ? std::string("MM\0*\0\0\0\10\0\1\1\22\0\3\0\0\0\1\0\0\0\0\0\0\0\0", 26)
                           : std::string("II*\0\10\0\0\0\1\0\22\1\3\0\1\0\0\0\0\0\0\0\0\0\0\0", 26);
            block[big_endian ? 19 : 18] = number;
            const std::string segment =
                std::string("\xff\xe1\0\42", 4) + std::string("Exif\0\0", 6) + block;
            std::vector<std::byte> file(plain.begin(), plain.begin() + 2);
            for (const char letter : segment) file.push_back(static_cast<std::byte>(letter));
            file.insert(file.end(), plain.begin() + 2, plain.end());

            const Image turned = decode_image(file, "memory");
            ASSERT_EQ(turned.width, orientation >= 5 ? 48 : 32) << orientation;
            ASSERT_EQ(turned.height, orientation >= 5 ? 32 : 48) << orientation;
            for (int corner = 0; corner < 4; ++corner) {
                const int x = corner % 2 == 0 ? 4 : turned.width - 5;
                const int y = corner / 2 == 0 ? 4 : turned.height - 5;
                EXPECT_NEAR(turned.rgb[3 * (y * turned.width + x)],
                            level[expected[orientation - 1][corner]], 0.03)
                    << orientation << " corner " << corner;
            }
        }
    }
}

/// stb_image 2.27 writes past its tables for this: see jpeg.h.
TEST(Image, jpeg_with_too_many_huffman_codes_is_refused) {
    const std::vector<std::byte> good = jpeg_of(random_image(16, 16));
    EXPECT_EQ(refusal(good), "accepted");
    const std::string text(reinterpret_cast<const char*>(good.data()), good.size());
    const size_t table = text.find("\xff\xc4");
    const size_t scan = text.find("\xff\xda");
    ASSERT_LT(table, scan);
    std::vector<std::byte> before_scan = good;
    before_scan[table + 20] = before_scan[table + 19] = std::byte{0xff};
    EXPECT_THAT(refusal(before_scan), HasSubstr("Huffman"));

    const std::vector<std::byte> segment = to_bytes(text.substr(table, scan - table));
    std::vector<std::byte> after_scan = good;
    after_scan.insert(after_scan.end() - 2, segment.begin(), segment.end());
    EXPECT_EQ(refusal(after_scan), "accepted");
    const size_t second = good.size() - 2;
    after_scan[second + 20] = after_scan[second + 19] = std::byte{0xff};
    EXPECT_THAT(refusal(after_scan), HasSubstr("Huffman"));
}

TEST(Image, refusals_say_what_the_file_is) {
    EXPECT_THAT(refusal({}), HasSubstr("an empty file"));
    EXPECT_THAT(refusal(to_bytes("hello")),
                HasSubstr("expected a PNG or JPEG picture, found x.png to be text"));
    EXPECT_THAT(refusal(to_bytes("GIF89a\1\0\1\0")), HasSubstr("a GIF picture"));
    EXPECT_THAT(refusal(to_bytes(std::string("RIFF\0\0\0\0WEBPVP8 ", 16))),
                HasSubstr("a WebP picture"));
    EXPECT_THROW(load_image("/nowhere/x.png"), Error);
}

TEST(Image, refuses_damaged_and_hostile_files) {
    const std::vector<std::byte> good = encode_png(random_image(40, 40));
    for (const size_t length : {size_t{10}, size_t{40}, good.size() / 2})
        EXPECT_NE(refusal(std::span(good).first(length)), "accepted") << length;
    // The size field alone asks for 2^31 pixels a side, or 16384 x 16384.
    std::vector<std::byte> huge = good;
    for (const size_t at : {16, 20}) huge[at] = std::byte{0x7f};
    EXPECT_NE(refusal(huge), "accepted");
    std::vector<std::byte> large = good;
    for (const size_t at : {18, 22}) large[at] = std::byte{0x40};
    for (const size_t at : {19, 23}) large[at] = std::byte{0};
    EXPECT_THAT(refusal(large), HasSubstr("16384x16384"));
}

TEST(Image, invalid_pictures_are_refused) {
    EXPECT_THROW(encode_png(Image{}), Error);
    EXPECT_THROW(encode_png(Image{.width = 2, .height = 1, .rgb = {0, 0, 0}}), Error);
    EXPECT_THROW(encode_png(Image{.width = -1, .height = -1, .rgb = {0, 0, 0}}), Error);
    EXPECT_THROW(resize(grey_row({0}), 0, 1), Error);
    EXPECT_THROW(resize(grey_row({0}), 1, kMaxImageSide + 1), Error);
}

TEST(Image, a_failed_save_leaves_nothing) {
    const TemporaryFolder folder;
    EXPECT_THROW(save_png(folder / "a.png", grey_row({0}), {{"bad\nkeyword", "x"}}), Error);
    EXPECT_THROW(save_png(folder / "none/a.png", grey_row({0})), Error);
    EXPECT_EQ(folder.file_count(), 0u);
}

TEST(Image, resize_is_bilinear_when_enlarging) {
    const Image image = resize(grey_row({0, 1}), 4, 1);
    const std::vector<float> expected = {0, 0.25f, 0.75f, 1};  // half-pixel centres
    for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(red(image)[i], expected[i], 1e-6) << i;
}

TEST(Image, resize_counts_every_pixel_when_shrinking) {
    // Stripes of one pixel must become grey, not black or white.
    Image stripes{.width = 64, .height = 64, .rgb = {}};
    for (int i = 0; i < 64 * 64; ++i)
        stripes.rgb.insert(stripes.rgb.end(), 3, static_cast<float>(i % 2));
    // At the border the filter sees the outermost pixel twice.
    const std::vector<float> values = red(resize(stripes, 16, 8));
    for (size_t i = 0; i < values.size(); ++i)
        EXPECT_NEAR(values[i], 0.5f, i % 16 == 0 || i % 16 == 15 ? 0.1f : 1e-5f) << i;

    // A single dot keeps its weight: 1 / 16 of a 4x4 reduction, spread by the triangle filter.
    Image dot{.width = 64, .height = 64, .rgb = std::vector<float>(3 * 64 * 64)};
    dot.rgb[3 * (30 * 64 + 30)] = 1;
    double sum = 0;
    for (const float value : resize(dot, 16, 16).rgb) sum += value;
    EXPECT_NEAR(sum, 1.0 / 16, 1e-3);
}

TEST(Image, resize_to_the_same_size_changes_nothing) {
    const Image image = random_image(31, 17);
    const Image same = resize(image, 31, 17);
    for (size_t i = 0; i < image.rgb.size(); ++i) ASSERT_NEAR(same.rgb[i], image.rgb[i], 1e-6);
}

TEST(Image, resize_handles_extreme_ratios) {
    const Image point = grey_row({0.5f});
    const Image wide = resize(point, 3000, 2);
    for (const float value : wide.rgb) ASSERT_NEAR(value, 0.5f, 1e-6);
    for (const float value : resize(wide, 1, 1).rgb) ASSERT_NEAR(value, 0.5f, 1e-5);
    EXPECT_EQ(resize(random_image(5, 400), 300, 3).rgb.size(), 2700u);
}

TEST(Image, psnr_follows_its_definition) {
    const Image a = grey_row({0, 0.5f, 1}), b = grey_row({0.1f, 0.6f, 0.9f});
    EXPECT_NEAR(psnr(a, b), 20, 1e-4);  // mean square 0.01
    EXPECT_EQ(psnr(a, a), std::numeric_limits<double>::infinity());
    EXPECT_THROW(psnr(a, grey_row({0, 0})), Error);
}

TEST(Image, ssim_follows_its_definition) {
    const auto plain = [](float value) {
        return Image{.width = 12, .height = 11, .rgb = std::vector<float>(3 * 12 * 11, value)};
    };
    const double c1 = 1e-4;  // means alone differ: no variance, so contrast and structure are 1
    EXPECT_NEAR(ssim(plain(0.4f), plain(0.6f)), (2 * 0.24 + c1) / (0.16 + 0.36 + c1), 1e-6);
    Image a = random_image(20, 15), opposite = a;
    EXPECT_NEAR(ssim(a, a), 1, 1e-12);
    for (float& value : opposite.rgb) value = 1 - value;
    EXPECT_LT(ssim(a, opposite), -0.5);
    EXPECT_THROW(ssim(a, plain(0)), Error);
    EXPECT_THROW(ssim(grey_row({0}), grey_row({0})), Error);
}

TEST(Image, tiles_stand_in_rows_on_white) {
    const std::vector<Image> images = {grey_row({0, 0.1f}), grey_row({0.2f}),
                                       grey_row({0.3f, 0.4f})};
    const Image sheet = tile_images(images, 2);
    EXPECT_EQ(sheet.width, 6);   // 2 + gap 2 + 2
    EXPECT_EQ(sheet.height, 4);  // 1 + gap 2 + 1
    const float w = 1;
    EXPECT_THAT(red(sheet), ElementsAre(0, 0.1f, w, w, 0.2f, w,  //
                                        w, w, w, w, w, w,        //
                                        w, w, w, w, w, w,        //
                                        0.3f, 0.4f, w, w, w, w));
    EXPECT_EQ(tile_images(images, 99).width, 10);  // one row of three
    EXPECT_THROW(tile_images({}, 1), Error);
    EXPECT_THROW(tile_images(images, 0), Error);
}

}  // namespace
}  // namespace fovea
