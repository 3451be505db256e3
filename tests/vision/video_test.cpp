#include "vision/video.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

// A GIF reader that is not libavcodec's.
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_GIF
#define STBI_NO_STDIO
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include <stb_image.h>
#pragma GCC diagnostic pop

#include <cmath>
#include <random>
#include <set>

#include "backend/error.h"
#include "tests/vision/temporary_folder.h"
#include "vision/file.h"
#include "vision/palette.h"
#include "vision/video_codecs.h"

namespace fovea {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr int kWidth = 64, kHeight = 48, kFrames = 6;

/// A soft disc that moves over a gradient: every frame differs from the last.
Clip moving_disc(int frames = kFrames) {
    Clip clip{.frames = {}, .fps = 8, .text = R"({"prompt":"a <b> & ü, \"c\"","seed":7})"};
    for (int f = 0; f < frames; ++f) {
        Image image{.width = kWidth, .height = kHeight, .rgb = {}};
        for (int y = 0; y < kHeight; ++y)
            for (int x = 0; x < kWidth; ++x) {
                const double distance = std::hypot(x - 10 - 8 * f, y - 24);
                const auto in = static_cast<float>(1 / (1 + std::exp(distance - 8)));
                const float side = static_cast<float>(x) / kWidth;
                image.rgb.insert(image.rgb.end(),
                                 {0.2f + 0.7f * in, 0.3f + 0.3f * side, 0.8f - in / 2});
            }
        clip.frames.push_back(std::move(image));
    }
    return clip;
}

void expect_same_clip(const Clip& found, const Clip& clip, double least_psnr) {
    ASSERT_EQ(found.frames.size(), clip.frames.size());
    EXPECT_NEAR(found.fps, clip.fps, 0.1);
    EXPECT_EQ(found.text, clip.text);
    for (size_t i = 0; i < clip.frames.size(); ++i)
        EXPECT_GT(psnr(found.frames[i], clip.frames[i]), least_psnr) << "frame " << i;
    EXPECT_LT(psnr(found.frames[0], found.frames[1]), 30) << "no two frames are alike";
}

TEST(Video, EveryFormatGivesItsFramesBack) {
    const TemporaryFolder folder;
    const Clip clip = moving_disc();
    for (const auto& [name, least] : {std::pair{"a.mp4", 33.0},
                                      {"a.webp", 33.0},
                                      {"a.gif", 30.0},
                                      {"a/", 55.0},
                                      {"b-%03d.png", 55.0}}) {
        SCOPED_TRACE(name);
        EXPECT_FALSE(save_video(folder / name, clip).empty());
        expect_same_clip(load_video(folder / name), clip, least);
    }
    EXPECT_TRUE(std::filesystem::exists(folder / "a" / "frame-0006.png"));
    EXPECT_TRUE(std::filesystem::exists(folder / "b-006.png"));
    EXPECT_EQ(folder.file_count(), 4u + kFrames);
}

TEST(Video, SameClipSameBytes) {
    const TemporaryFolder folder;
    const Clip clip = moving_disc();
    for (const char* name : {"a.mp4", "a.webp", "a.gif"}) {
        save_video(folder / name, clip);
        const auto first = read_file(folder / name, 1 << 20);
        save_video(folder / name, clip);
        EXPECT_EQ(read_file(folder / name, 1 << 20), first) << name;
    }
}

TEST(Video, GifsAreReadByOthers) {
    const Clip clip = moving_disc();
    const auto gif = encode_gif(clip);
    int *delays = nullptr, width = 0, height = 0, frames = 0, channels = 0;
    stbi_uc* pixels = stbi_load_gif_from_memory(reinterpret_cast<const stbi_uc*>(gif.data()),
                                                static_cast<int>(gif.size()), &delays, &width,
                                                &height, &frames, &channels, 3);
    ASSERT_NE(pixels, nullptr) << stbi_failure_reason();
    ASSERT_EQ(frames, kFrames);
    ASSERT_EQ(width, kWidth);
    int total = 0;
    for (int f = 0; f < frames; ++f) {
        const Image image = image_of(pixels + 3 * static_cast<size_t>(f * width * height), width,
                                     height, 3 * static_cast<size_t>(width));
        EXPECT_GT(psnr(image, clip.frames[static_cast<size_t>(f)]), 30) << "frame " << f;
        total += delays[f];
    }
    EXPECT_NEAR(total, kFrames * 125, 30);  // milliseconds
    stbi_image_free(pixels);
    stbi_image_free(delays);
}

TEST(Video, NamesSayTheFormat) {
    const TemporaryFolder folder;
    EXPECT_EQ(video_format("a.MP4"), VideoFormat::mp4);
    EXPECT_EQ(video_format("a.webp"), VideoFormat::webp);
    EXPECT_EQ(video_format("x/a.gif"), VideoFormat::gif);
    EXPECT_EQ(video_format("x/"), VideoFormat::frames);
    EXPECT_EQ(video_format(folder.path()), VideoFormat::frames);
    EXPECT_EQ(video_format("x/%d.png"), VideoFormat::frames);
    for (const char* name : {"a.png", "a.avi", "a", "%d.gif.x", "x/%s.png", "x/%d-%d.png"})
        EXPECT_THAT([&] { video_format(name); }, ThrowsMessage<Error>(HasSubstr(".webp"))) << name;
}

TEST(Video, AShorterClipLeavesNoOldFrames) {
    const TemporaryFolder folder;
    save_video(folder / "a/", moving_disc());
    save_video(folder / "a/", moving_disc(3));
    EXPECT_EQ(load_video(folder / "a").frames.size(), 3u);
}

TEST(Video, FramesWithAGapAreRefused) {
    const TemporaryFolder folder;
    save_video(folder / "a/", moving_disc(3));
    write_file(folder / "a" / "frame-0002-mask.png", {});  // no frame
    EXPECT_EQ(load_video(folder / "a").frames.size(), 3u);
    std::filesystem::rename(folder / "a" / "frame-0002.png", folder / "a" / "frame-0000.png");
    for (const char* beyond : {"frame-0003.png", "frame-0000.png"}) {
        EXPECT_THAT([&] { load_video(folder / "a"); }, ThrowsMessage<Error>(HasSubstr("gap")));
        std::filesystem::remove(folder / "a" / beyond);
    }
    EXPECT_EQ(load_video(folder / "a" / "frame-%04d.png").frames.size(), 1u);
}

TEST(Video, BytesTellClipsFromPictures) {
    const TemporaryFolder folder;
    save_video(folder / "a.webp", moving_disc(1));
    EXPECT_TRUE(is_clip(folder / "a.webp"));
    save_png(folder / "50%off", moving_disc(1).frames[0]);
    const auto bmp = std::as_bytes(std::span("BM1234\0\0\0\0"));
    write_file(folder / "a.bmp", bmp);
    for (const char* picture : {"50%off", "a.bmp"}) EXPECT_FALSE(is_clip(folder / picture));
    EXPECT_TRUE(is_clip(folder / "none-%04d.png"));
    EXPECT_THROW(is_clip(folder / "none"), Error);
}

TEST(Video, WhatIsNoClipIsRefused) {
    const TemporaryFolder folder;
    Clip odd;
    odd.frames = {Image{.width = 3, .height = 2, .rgb = std::vector<float>(18)}};
    EXPECT_THAT([&] { save_video(folder / "a.mp4", odd); },
                ThrowsMessage<Error>(HasSubstr("even sides")));
    EXPECT_THROW(save_video(folder / "a.gif", Clip{}), Error);
    odd.frames.push_back(Image{.width = 2, .height = 2, .rgb = std::vector<float>(12)});
    EXPECT_THROW(save_video(folder / "a.gif", odd), Error);
    EXPECT_EQ(folder.file_count(), 0u);
    EXPECT_THROW(load_video(folder / "none.mp4"), Error);
    EXPECT_THROW(load_video(folder.path()), Error);

    // Damaged files: an error or what could still be read, never a crash.
    const Clip clip = moving_disc();
    for (const char* name : {"a.mp4", "a.webp", "a.gif"}) {
        save_video(folder / name, clip);
        auto bytes = read_file(folder / name, 1 << 20);
        std::mt19937 random(3);
        for (size_t cut : {bytes.size() / 2, size_t{20}, size_t{0}}) {
            write_file(folder / name, std::span(bytes).first(cut));
            try {
                EXPECT_LE(load_video(folder / name).frames.size(), clip.frames.size());
            } catch (const Error& error) {
                EXPECT_THAT(error.what(), HasSubstr(name));
            }
        }
        for (int i = 0; i < 40; ++i) bytes[random() % bytes.size()] = std::byte(random() & 255);
        write_file(folder / name, bytes);
        try {
            load_video(folder / name);
        } catch (const Error&) {
        }
    }
}

TEST(Palette, FewColorsAreExact) {
    std::vector<uint8_t> rgb;
    for (int i = 0; i < 600; ++i)
        for (int c = 0; c < 3; ++c) rgb.push_back(static_cast<uint8_t>(i % 5 * 50 + c));
    const Palette palette(rgb, 8);
    ASSERT_EQ(palette.colors().size(), 5u);
    const auto indices = palette.indices(rgb, 20);
    for (size_t i = 0; i < indices.size(); ++i)
        for (size_t c = 0; c < 3; ++c) EXPECT_EQ(palette.colors()[indices[i]][c], rgb[3 * i + c]);
}

TEST(Palette, ManyColorsComeNear) {
    std::mt19937 random(1);
    std::vector<uint8_t> rgb;
    for (int i = 0; i < 3 * 4096; ++i) rgb.push_back(static_cast<uint8_t>(random()));
    const Palette palette(rgb, 64);
    const std::set<Color> distinct(palette.colors().begin(), palette.colors().end());
    EXPECT_EQ(distinct.size(), 64u);
    const auto indices = palette.indices(rgb, 64);
    double squares = 0;
    for (size_t i = 0; i < rgb.size(); ++i) {
        const double d = double(rgb[i]) - double(palette.colors()[indices[i / 3]][i % 3]);
        squares += d * d;
    }
    // 64 cubes of a quarter of the axis: a standard deviation of 64 / √12 an axis.
    EXPECT_LT(std::sqrt(squares / static_cast<double>(rgb.size())), 64 / std::sqrt(12.0) * 1.15);
    EXPECT_THROW(Palette(rgb, 0), Error);
    EXPECT_THROW(Palette(rgb, 257), Error);
}

}  // namespace
}  // namespace fovea
