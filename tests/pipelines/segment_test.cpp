#include "pipelines/segment.h"

#include <gmock/gmock.h>

#include <array>
#include <cmath>
#include <numbers>

#include "backend/error.h"
#include "pipelines/segment_clip.h"
#include "tests/testing.h"

/// Small things of a composed picture, the default model.
namespace fovea {
namespace {

using testing::device;

/// Whether a five-pointed star of this radius around a pixel covers a place.
bool in_star(double x, double y, double radius) {
    constexpr double kPoint = 2 * std::numbers::pi / 5, kNotch = 0.5;
    const double turn = std::remainder(std::atan2(x, -y), kPoint);
    const double along = std::hypot(x, y) * std::cos(turn) / radius,
                 across = std::hypot(x, y) * std::abs(std::sin(turn)) / radius;
    return (1 - kNotch * std::cos(kPoint / 2)) * across <
           kNotch * std::sin(kPoint / 2) * (1 - along);
}

Mask star(double x, double y, double radius, int width = 256, int height = 256) {
    Mask mask{.width = width, .height = height, .hole = {}};
    for (int row = 0; row < height; ++row)
        for (int column = 0; column < width; ++column)
            mask.hole.push_back(in_star(column + 0.5 - x, row + 0.5 - y, radius));
    return mask;
}

/// Yellow where the mask is, before green and brown waves.
Image draw(const Mask& mask) {
    Image image{mask.width, mask.height, {}};
    const auto width = static_cast<size_t>(mask.width);
    for (size_t i = 0; i < mask.hole.size(); ++i) {
        const auto x = static_cast<float>(i % width), y = static_cast<float>(i / width);
        const float wave = 0.1f * std::sin(0.11f * x + 0.05f * y) * std::cos(0.07f * y);
        for (const float value : mask.hole[i]
                                     ? std::array{0.98f, 0.78f, 0.2f}
                                     : std::array{0.35f + wave, 0.5f - wave, 0.25f + wave / 2})
            image.rgb.push_back(value);
    }
    return image;
}

double iou(const Mask& a, const Mask& b) {
    int both = 0, either = 0;
    for (size_t i = 0; i < a.hole.size(); ++i) {
        both += a.hole[i] && b.hole[i];
        either += a.hole[i] || b.hole[i];
    }
    return static_cast<double>(both) / either;
}

TEST(SegmentedPicture, ACloserLookDrawsASmallThingBetter) {
    vk::Stream stream(device());
    const auto model = SegmentModel::load(stream, FOVEA_SOURCE_DIR "/assets/default", DType::f32);
    const Mask truth = star(90, 150, 11);
    SegmentedPicture picture(stream, model, draw(truth));
    const SegmentPrompt point{.points = {{.x = 90, .y = 150}}}, box{.box = corners_of(truth.box())};
    for (const auto& prompt : {point, box}) {
        const auto closer = picture.ask(prompt);
        ASSERT_TRUE(closer);
        const auto far = picture.refine(closer->first, prompt, {.closer = false});
        EXPECT_GT(iou(closer->mask(), truth), 0.85);
        EXPECT_GT(iou(closer->mask(), truth), iou(far.mask(), truth) + 0.02);
        const auto corrected =
            picture.ask({.points = {{.x = 90, .y = 150}, {.x = 104, .y = 152, .positive = false}},
                         .earlier = closer->last});
        ASSERT_TRUE(corrected);
        EXPECT_EQ(corrected->last.window, closer->last.window);
        EXPECT_GT(iou(corrected->mask(), truth), 0.85);
    }
}

TEST(SegmentedPicture, AThingTooSmallForTheWholeIsSeenFromNearby) {
    vk::Stream stream(device());
    const auto model = SegmentModel::load(stream, FOVEA_SOURCE_DIR "/assets/default", DType::f32);
    const Mask truth = star(700, 300, 7, 1024, 1024);
    SegmentedPicture picture(stream, model, draw(truth));
    const SegmentPrompt::Point on{.x = 700, .y = 300},
        beside{.x = 700, .y = 320, .positive = false};
    for (const SegmentPrompt& prompt :
         {SegmentPrompt{.points = {on}}, SegmentPrompt{.box = corners_of(truth.box())},
          SegmentPrompt{.points = {on, beside}},
          SegmentPrompt{.points = {on, {.x = 701, .y = 303}}},
          SegmentPrompt{.points = {on}, .words = "star"}}) {
        const auto found = picture.ask(prompt);
        ASSERT_TRUE(found);
        EXPECT_LT(found->first.window.width(), 1024) << "the whole shows it: a smaller one is due";
        EXPECT_GT(iou(found->mask(), truth), 0.8);
    }
}

TEST(SegmentedPicture, PointsBesideABoxCountInTheCloserLook) {
    vk::Stream stream(device());
    const auto model = SegmentModel::load(stream, FOVEA_SOURCE_DIR "/assets/default", DType::f32);
    const Mask truth = star(300, 200, 60, 512, 512);
    SegmentedPicture picture(stream, model, draw(truth));
    SegmentPrompt prompt{.box = {{.left = 290, .top = 140, .right = 310, .bottom = 160}}};
    const auto tip = picture.ask(prompt);
    ASSERT_TRUE(tip);
    EXPECT_LT(iou(tip->mask(), truth), 0.5) << "the box holds no more than a tip";
    prompt.points = {{.x = 300, .y = 200}, {.x = 260, .y = 185}, {.x = 325, .y = 235}};
    const auto all = picture.ask(prompt);
    ASSERT_TRUE(all);
    EXPECT_LT(all->last.window.width(), 512) << "no closer look";
    EXPECT_GT(iou(all->mask(), truth), 0.8);
}

TEST(SegmentedPicture, WhatIsDrawnInNoPixelIsNotFound) {
    vk::Stream stream(device());
    const auto model = SegmentModel::load(stream, FOVEA_SOURCE_DIR "/assets/default", DType::f32);
    SegmentedPicture picture(stream, model, Image{1, 1, {0.9f, 0.8f, 0.2f}});
    EXPECT_FALSE(picture.ask({.box = {{.left = 0, .top = 0, .right = 0.5f, .bottom = 0.5f}}}));
}

TEST(SegmentPrompts, APlaceFarOutsideIsNamedAsItIs) {
    try {
        validate({.points = {{.x = 4294967296.0f, .y = 5}}}, 20, 10);
        FAIL();
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), ::testing::HasSubstr("point 4294967296,5 lies outside"));
    }
}

TEST(SegmentedPicture, WordsAreSearchedForInTheParts) {
    vk::Stream stream(device());
    const auto model = SegmentModel::load(stream, FOVEA_SOURCE_DIR "/assets/default", DType::f32);
    Mask truth = star(700, 300, 26, 1024, 1024);
    const Mask second = star(180, 840, 34, 1024, 1024);
    for (size_t i = 0; i < truth.hole.size(); ++i) truth.hole[i] |= second.hole[i];
    SegmentedPicture picture(stream, model, draw(truth));
    const auto found = picture.ask({.words = "star"}),
               at_once = picture.ask({.words = "star", .search = false});
    ASSERT_TRUE(found);
    EXPECT_GT(iou(found->mask(), truth), 0.8);
    EXPECT_GT(iou(found->mask(), truth), at_once ? iou(at_once->mask(), truth) + 0.1 : 0);
}

TEST(SegmentClip, WordsInLargeFramesAreFollowed) {
    vk::Stream stream(device());
    const auto model = SegmentModel::load(stream, FOVEA_SOURCE_DIR "/assets/default", DType::f32);
    const std::array truths{star(200, 260, 60, 400, 400), star(220, 250, 60, 400, 400)};
    const auto found = SegmentClip::run(stream, model, {draw(truths[0]), draw(truths[1])},
                                        {.prompt = {.words = "star"}});
    for (size_t frame = 0; frame < truths.size(); ++frame) {
        ASSERT_TRUE(found[frame]) << frame;
        EXPECT_GT(iou(found[frame]->mask(), truths[frame]), 0.85) << frame;
    }
}

TEST(SegmentClip, WhatIsSeenFromNearbyIsFollowed) {
    vk::Stream stream(device());
    const auto model = SegmentModel::load(stream, FOVEA_SOURCE_DIR "/assets/default", DType::f32);
    const std::array truths{star(700, 300, 12, 1024, 576), star(706, 304, 12, 1024, 576)};
    const auto found = SegmentClip::run(stream, model, {draw(truths[0]), draw(truths[1])},
                                        {.prompt = {.points = {{.x = 700, .y = 300}}}});
    ASSERT_TRUE(found[0]);
    ASSERT_LT(found[0]->first.window.width(), 1024) << "the whole shows it: a smaller one is due";
    EXPECT_GT(iou(found[0]->mask(), truths[0]), 0.8);
    ASSERT_TRUE(found[1]);
    EXPECT_GT(iou(found[1]->mask(), truths[1]), 0.8);
}

TEST(SegmentedPicture, EverythingIsSortedAndDistinctAsDrawn) {
    vk::Stream stream(device());
    const auto model = SegmentModel::load(stream, FOVEA_SOURCE_DIR "/assets/default", DType::f32);
    Mask stars = star(60, 70, 40);
    for (const auto& [x, y, radius] : {std::array{180, 60, 24}, {190, 190, 50}, {70, 190, 12}}) {
        const Mask more = star(x, y, radius);
        for (size_t i = 0; i < stars.hole.size(); ++i) stars.hole[i] |= more.hole[i];
    }
    SegmentedPicture picture(stream, model, draw(stars));
    std::vector<std::pair<int, int>> steps;
    const auto found = picture.everything(
        {.grid = 12, .on_step = [&](int done, int total) { steps.emplace_back(done, total); }});
    ASSERT_GE(found.size(), 3);
    for (size_t i = 0; i < found.size(); ++i)
        for (size_t other = 0; other < i; ++other) {
            EXPECT_LE(found[i].score, found[other].score) << i << " " << other;
            EXPECT_LT(iou(found[i].mask(), found[other].mask()), 0.7) << i << " " << other;
        }
    EXPECT_GT(steps.back().second, 144) << "closer looks are no steps";
    for (size_t i = 0; i < steps.size(); ++i)
        EXPECT_EQ(steps[i].first == steps[i].second, i + 1 == steps.size()) << steps[i].first;
}

TEST(SegmentView, TilesCoverThePictureAndOverlapByHalf) {
    EXPECT_THAT(tiles_of(300, 300, 256), ::testing::IsEmpty()) << "256 of 300: no gain";
    for (const auto& [width, height] : {std::pair{1024, 768}, {640, 640}, {400, 400}, {900, 300}}) {
        const auto tiles = tiles_of(width, height, 256);
        Mask covered{.width = width, .height = height, .hole = {}};
        covered.hole.resize(static_cast<size_t>(width) * static_cast<size_t>(height));
        for (const Box& tile : tiles) {
            ASSERT_TRUE((Box{0, 0, width, height}.contains(tile)));
            EXPECT_EQ(tile.width(), tiles[0].width());
            EXPECT_EQ(tile.height(), tiles[0].height());
            for (int y = tile.top; y < tile.bottom; ++y)
                for (int x = tile.left; x < tile.right; ++x) ++covered.at(x, y);
        }
        EXPECT_THAT(covered.hole, ::testing::Each(::testing::Gt(0)));
        EXPECT_GE(covered.at(width / 2, height / 2), 2) << width << "x" << height;
    }
}

TEST(SegmentView, MergedAnswersShowWhatEitherShows) {
    const auto answer = [](const Box& window, float found, float score) {
        return SegmentAnswer{.window = window,
                             .rows = 4,
                             .columns = 4,
                             .logits = std::vector<float>(16, -6),
                             .score = score,
                             .found = found};
    };
    SegmentAnswer whole = answer({0, 0, 64, 64}, 0.9f, 0.5f);
    whole.logits[0] = 5;  // the first 16 pixels
    std::vector<SegmentAnswer> tiles;
    for (const Box& window : tiles_of(64, 64, 16)) tiles.push_back(answer(window, 0.1f, 0.8f));
    ASSERT_EQ(tiles.size(), 9);
    tiles[8].logits[15] = 5;  // the last 8 pixels, in the last tile alone
    EXPECT_LT(merge(whole, tiles).logits.back(), 0) << "it says that it shows nothing";
    tiles[8].found = 0.95f;
    const auto merged = merge(whole, tiles);
    EXPECT_EQ(merged.window, whole.window);
    EXPECT_EQ(merged.rows, 8);
    EXPECT_EQ(merged.columns, 8);
    EXPECT_FLOAT_EQ(merged.found, 0.95f);
    EXPECT_FLOAT_EQ(merged.score, 0.8f);
    for (size_t i = 0; i < merged.logits.size(); ++i)
        EXPECT_EQ(merged.logits[i] > 0, i == 0 || i == 1 || i == 8 || i == 9 || i == 63) << i;
}

}  // namespace
}  // namespace fovea
