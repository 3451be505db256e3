#include "vision/png_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string_view>

#include "backend/error.h"
#include "tests/vision/temporary_folder.h"
#include "vision/image.h"
#include "vision/utf8.h"

namespace fovea {
namespace {

using ::testing::HasSubstr;

const Image kPixel = {.width = 1, .height = 1, .rgb = {0, 0.5f, 1}};

std::string to_text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::byte> to_bytes(std::string_view text) {
    std::vector<std::byte> bytes(text.size());
    std::memcpy(bytes.data(), text.data(), text.size());
    return bytes;
}

TEST(PngText, comes_back_and_the_picture_with_it) {
    const TemporaryFolder folder;
    const PngText text = {{"prompt", "a red cat\non grass"},
                          {"Title", "Füchse – 狐 🦊"},
                          {"empty", ""},
                          {"control", "tab\tand return\r"}};
    save_png(folder / "a.png", kPixel, text);
    EXPECT_EQ(read_png_text(folder / "a.png"), text);
    EXPECT_EQ(load_image(folder / "a.png").rgb, decode_image(encode_png(kPixel), "plain").rgb);
}

TEST(PngText, chunks_are_those_of_the_specification) {
    // Length, type, keyword, text and the CRC by Python's zlib.crc32.
    const std::string ascii = to_text(encode_png(kPixel, {{"k", "v"}}));
    EXPECT_EQ(ascii.substr(33, 15), std::string("\0\0\0\3tEXtk\0v"
                                                "\xcb\x04\xf3\x90",
                                                15));
    const std::string unicode = to_text(encode_png(kPixel, {{"k", "é"}}));
    EXPECT_EQ(unicode.substr(33, 20), std::string("\0\0\0\10iTXtk\0\0\0\0\0\xc3\xa9"
                                                  "\xc3\x99\x49\x19",
                                                  20));
}

TEST(PngText, refuses_what_the_format_cannot_hold) {
    const auto refused = [](const std::string& keyword, const std::string& text) {
        try {
            encode_png(kPixel, {{keyword, text}});
            return false;
        } catch (const Error&) {
            return true;
        }
    };
    EXPECT_FALSE(refused(std::string(79, 'k'), "x"));
    EXPECT_TRUE(refused(std::string(80, 'k'), "x"));
    EXPECT_TRUE(refused("", "x"));
    EXPECT_TRUE(refused(" k", "x"));
    EXPECT_TRUE(refused("k ", "x"));
    EXPECT_TRUE(refused("k  k", "x"));
    EXPECT_TRUE(refused("k\n", "x"));
    EXPECT_TRUE(refused("é", "x"));
    EXPECT_TRUE(refused("k", std::string("a\0b", 3)));
    EXPECT_TRUE(refused("k", "\xff"));
    EXPECT_THROW(insert_png_text(to_bytes("GIF89a"), {}), Error);
}

TEST(PngText, damaged_chunks_are_refused) {
    const std::vector<std::byte> good = encode_png(kPixel, {{"k", "value"}});
    std::vector<std::byte> flipped = good;
    flipped[8 + 25 + 8 + 2] ^= std::byte{1};  // a letter of the text
    EXPECT_THROW(parse_png_text(flipped, "x"), Error);
    for (size_t length = 0; length < good.size(); ++length)
        EXPECT_THROW(parse_png_text(std::span(good).first(length), "x"), Error) << length;
    std::vector<std::byte> endless = good;
    endless[33] = std::byte{0xff};  // a chunk of 4 GB
    EXPECT_THROW(parse_png_text(endless, "x"), Error);
    try {
        parse_png_text(to_bytes("plain"), "x.txt");
        FAIL();
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("x.txt to be text"));
    }
}

TEST(Utf8, knows_valid_from_invalid) {
    for (const char* valid : {"", "a", "é", "€", "🦊", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf"})
        EXPECT_TRUE(is_utf8(valid)) << valid;
    // Stray, cut, overlong, surrogate, above U+10FFFF.
    for (const char* invalid : {"\x80", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf",
                                "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff", "\xe2\x82", "\xc3("})
        EXPECT_FALSE(is_utf8(invalid)) << invalid;
    EXPECT_EQ(first_code_point("🦊x").value, U'🦊');
    EXPECT_EQ(first_code_point("🦊x").bytes, 4u);
}

}  // namespace
}  // namespace fovea
