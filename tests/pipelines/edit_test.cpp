#include "pipelines/edit.h"

#include <gmock/gmock.h>

#include "backend/error.h"
#include "backend/ops/elementwise.h"
#include "pipelines/lens.h"
#include "pipelines/refer.h"
#include "pipelines/text_to_image.h"
#include "tests/testing.h"

/// Lens, inversion and edit with the default model at its smallest size and few steps.
namespace fovea {
namespace {

using testing::device;
using ::testing::HasSubstr;

class EditTest : public ::testing::Test {
  protected:
    EditTest()
        : stream_(device()),
          model_(Model::load(stream_, FOVEA_SOURCE_DIR "/assets/default", DType::f32)) {
        request_.frames = {picture()};
        request_.width = request_.height = 128;
        request_.source = "a red apple on a blue background";
        request_.target = "a pear on a blue background";
        request_.steps = 1;
        request_.cfg = 1;
    }
    /// An apple of few words: a red disc on blue.
    static Image picture() {
        Image image{128, 128, {}};
        for (int y = 0; y < 128; ++y)
            for (int x = 0; x < 128; ++x) {
                const bool inside = (x - 64) * (x - 64) + (y - 64) * (y - 64) < 1200;
                for (const float value :
                     inside ? std::array{0.85f, 0.15f, 0.16f} : std::array{0.19f, 0.41f, 0.87f})
                    image.rgb.push_back(value);
            }
        return image;
    }
    Edit::Result run() { return Edit::run(stream_, model_, request_); }
    template <typename Work>
    static std::string error(const Work& work) {
        try {
            work();
        } catch (const Error& error) {
            return error.what();
        }
        return {};
    }

    vk::Stream stream_;
    Model model_;
    Edit::Request request_;
};

TEST_F(EditTest, EqualPromptsGiveThePictureBack) {
    request_.target = request_.source;
    request_.cfg = 3;
    request_.mask = 0;  // without it nothing could change anyway
    const auto result = run();
    EXPECT_EQ(to_host(stream_, result.latent), to_host(stream_, result.source_latent));
    EXPECT_THAT(result.mask, ::testing::Each(1.0f));
}

// That the same request gives the same bits is seen by EditCli.
TEST_F(EditTest, OutsideTheMaskNothingChangesAndInsideWeightsMatter) {
    request_.mask = 0.7f;  // of 8 × 8 tokens a lower one leaves none
    request_.mask_words = {"apple"};
    request_.weights = {{"pear", 1.5f}};
    const auto result = run();
    const auto found = to_host(stream_, result.latent),
               own = to_host(stream_, result.source_latent);
    size_t inside = 0, changed = 0;
    for (size_t at = 0; at < found.size(); ++at) {
        const size_t pixel = at / 12, token = pixel / 16 / 2 * 8 + pixel % 16 / 2;
        if (result.mask[token] == 0) {
            EXPECT_EQ(found[at], own[at]) << at;
        } else {
            ++inside;
            changed += found[at] != own[at];
        }
    }
    EXPECT_GT(inside, 0u);
    EXPECT_LT(inside, found.size());
    EXPECT_GT(changed, inside / 2);
    // Pixels of tokens none of whose neighbours may change are the given ones.
    size_t kept = 0;
    for (int y = 0; y < 128; ++y)
        for (int x = 0; x < 128; ++x) {
            bool far = true;
            for (int row = std::max(0, y / 16 - 1); row <= std::min(7, y / 16 + 1); ++row)
                for (int column = std::max(0, x / 16 - 1); column <= std::min(7, x / 16 + 1);
                     ++column)
                    far &= result.mask[static_cast<size_t>(row * 8 + column)] == 0;
            const auto at = static_cast<size_t>(3 * (y * 128 + x));
            kept += far;
            if (far) {
                EXPECT_EQ(result.frames[0].rgb[at], result.resized[0].rgb[at]) << x << " " << y;
            }
        }
    EXPECT_GT(kept, 0u);
    EXPECT_NE(result.frames[0].rgb, result.resized[0].rgb);

    request_.weights = {{"pear", 0.5f}};
    EXPECT_NE(result.frames[0].rgb, run().frames[0].rgb);
}

TEST_F(EditTest, AWeightAloneChangesWhatItsWordShows) {
    request_.target = request_.source;
    for (const char* word : {"apple", "blue"}) {
        request_.weights = {{word, 3}};
        const auto result = run();
        EXPECT_THAT(result.mask, ::testing::Contains(1.0f)) << word;
        EXPECT_NE(result.frames[0].rgb, result.resized[0].rgb) << word;
    }
    request_.weights = {{"apple", 1}};
    const auto same = run();
    EXPECT_THAT(same.mask, ::testing::Each(0.0f));
    EXPECT_EQ(same.frames[0].rgb, same.resized[0].rgb);
}

TEST_F(EditTest, TheWayBackAndForthIsThePicture) {
    request_.steps = 4;
    const auto trip = Edit::round_trip(stream_, model_, request_);
    EXPECT_GT(psnr(trip.frames[0], trip.decoded[0]), 32);
    EXPECT_GT(psnr(trip.frames[0], request_.frames[0]), 20);
}

// v = z has the exact step back z_i = z_{i+1} / (1 + t_{i+1} − t_i).
TEST(Inversion, SolvesTheStepBack) {
    vk::Stream stream(device());
    const auto values = testing::random_values(96, 3);
    const std::vector<float> times{1, 0.75f, 0.5f, 0.25f, 0};
    Inversion::Options options{.iterations = 40, .tolerance = 1e-6};
    const auto inversion = invert(
        stream, upload(stream, values, {1, 2, 4, 12}, DType::f32), times,
        [](const Tensor& z, float) { return z; }, options);
    ASSERT_EQ(inversion.latents.size(), 5u);
    EXPECT_LE(inversion.residual, 1e-6);
    for (size_t i = 0; i < 5; ++i) {
        auto expected = values;
        for (float& value : expected)
            value /= static_cast<float>(std::pow(0.75, static_cast<double>(4 - i)));
        EXPECT_TRUE(testing::close(to_host(stream, inversion.latents[i]), expected, {1e-4f, 1e-4f}))
            << i;
    }
    options.iterations = 1;
    const auto once = invert(
        stream, upload(stream, values, {1, 2, 4, 12}, DType::f32), times,
        [](const Tensor& z, float) { return z; }, options);
    EXPECT_EQ(once.evaluations, 4);
    EXPECT_GT(once.residual, 0.05);
}

/// A clip of few frames, as tokens² of attention are most of the time here.
class EditClipTest : public EditTest {
  protected:
    static constexpr size_t kFrames = 2;
    EditClipTest() {
        request_.frames.assign(kFrames, picture());
        for (size_t i = 0; i < kFrames; ++i) {  // the disc moves right
            auto& rgb = request_.frames[i].rgb;
            std::rotate(rgb.begin(), rgb.end() - static_cast<long>(36 * i), rgb.end());
        }
        request_.iterations = 1;
    }
};

TEST_F(EditClipTest, OutsideTheMaskOfEachFrameNothingChangesAndMemoryIsForeseen) {
    vk::Device own_device;  // peaks are of a device's whole life
    vk::Stream stream(own_device);
    const Model model = Model::load(stream, FOVEA_SOURCE_DIR "/assets/default", DType::f32);
    request_.mask = 0.7f;
    request_.mask_words = {"apple"};
    request_.shared_frames = "first";
    const auto foreseen = static_cast<double>(Edit::memory(stream, model, request_).total());
    const auto result = Edit::run(stream, model, request_);
    const auto peak = static_cast<double>(own_device.peak_allocated());
    EXPECT_GE(foreseen, 0.95 * peak);
    EXPECT_LE(foreseen, 1.4 * peak);

    ASSERT_EQ(result.frames.size(), kFrames);
    ASSERT_EQ(result.mask.size(), kFrames * 64);
    const auto found = to_host(stream, result.latent), own = to_host(stream, result.source_latent);
    ASSERT_EQ(found.size(), kFrames * 16 * 16 * 12);
    size_t inside = 0, changed = 0;
    for (size_t at = 0; at < found.size(); ++at) {
        const size_t row = at / 12 / 16, column = at / 12 % 16;  // rows of all frames
        if (result.mask[row / 2 * 8 + column / 2] == 0) {
            EXPECT_EQ(found[at], own[at]) << at;
        } else {
            ++inside;
            changed += found[at] != own[at];
        }
    }
    EXPECT_GT(inside, 0u);
    EXPECT_LT(inside, found.size());
    EXPECT_GT(changed, inside / 2);
    size_t kept = 0;
    for (size_t i = 0; i < kFrames; ++i)  // where the next token may not change either
        if (result.mask[i * 64] + result.mask[i * 64 + 1] + result.mask[i * 64 + 8] +
                result.mask[i * 64 + 9] ==
            0) {
            EXPECT_EQ(result.frames[i].rgb[0], result.resized[i].rgb[0]);
            ++kept;
        }
    EXPECT_GT(kept, 0u);
    // The second frame no longer sees the first.
    request_.shared_frames = "none";
    EXPECT_NE(to_host(stream, Edit::run(stream, model, request_).latent), found);
    own_device.finish_pipelines();
}

TEST_F(EditClipTest, EqualPromptsGiveTheClipBack) {
    request_.target = request_.source;
    request_.mask = 0;
    const auto result = run();
    EXPECT_EQ(to_host(stream_, result.latent), to_host(stream_, result.source_latent));
    EXPECT_THAT(result.mask, ::testing::Each(1.0f));
}

TEST_F(EditClipTest, WhatCannotBeIsRefusedBeforeTheWork) {
    const auto message = [&] { return error([&] { run(); }); };
    request_.shared_frames = "second";
    EXPECT_THAT(message(), HasSubstr("\"second\" found"));
    request_.shared_frames = "all";
    const uint64_t need = Edit::memory(stream_, model_, request_).total();
    EXPECT_EQ(error([&] { Edit::require_fits(stream_, model_, request_, need); }), "");
    EXPECT_THAT(error([&] { Edit::require_fits(stream_, model_, request_, need - 1); }),
                HasSubstr("2 frames at 128x128: needs about"));
    request_.frames.push_back(Image{64, 64, {}});
    EXPECT_THAT(message(), HasSubstr("frames of 128x128 and 64x64 found"));
    request_.frames.resize(25);
    EXPECT_THAT(message(), HasSubstr("25 frames found, expected at most 24"));
    request_.frames.resize(1);
    request_.shared_frames = "first";
    EXPECT_THAT(message(), HasSubstr("beside a picture"));
}

TEST_F(EditTest, BadRequestsSayWhatIsExpectedAndCancelEndsOne) {
    const auto message = [&] { return error([&] { run(); }); };
    request_.weights = {{"banana", 2}};
    EXPECT_THAT(message(),
                HasSubstr("\"banana\" is not in the prompt, whose words are: a pear on"));
    request_.weights.clear();
    request_.mask_words = {"dragon"};
    EXPECT_THAT(message(), HasSubstr("\"dragon\" is not in the prompt"));
    request_.mask_words.clear();
    request_.strength = 1.5f;
    EXPECT_THAT(message(), HasSubstr("strength 1.5 found, expected 0 to 1"));
    request_.strength = 0.8f;
    request_.target = "xyzzy";
    EXPECT_THAT(message(), HasSubstr("\"xyzzy\" has no word that the model knows"));
    request_.width = 100;
    EXPECT_THAT(message(), HasSubstr("multiple of 16"));
    request_.width = 128;
    request_.target = "a pear";
    std::atomic<bool> cancel = false;
    request_.cancel = &cancel;
    request_.on_step = [&](int done, int) { cancel = cancel || done == 1; };
    EXPECT_THROW(run(), Cancelled);
}

TEST_F(EditTest, LensDrawsWhatGenerateDrawsAndFindsTheObjectOfAPicture) {
    Lens::Request request;
    request.prompt = request_.source;
    request.seed = 7;
    request.width = request.height = 128;
    request.steps = 2;
    request.taps.by_step = true;
    const auto result = Lens::run(stream_, model_, request);
    TextToImage::Request generate;
    generate.prompt = request.prompt;
    generate.seeds = {7};
    generate.width = generate.height = 128;
    generate.steps = 2;
    EXPECT_EQ(result.picture.rgb, TextToImage::run(stream_, model_, generate)[0].rgb);
    ASSERT_EQ(result.maps.size(), 2u);
    EXPECT_THAT(result.words,
                ::testing::ElementsAre("a", "red", "apple", "on", "a", "blue", "background"));
    EXPECT_EQ(result.maps[1].step, 1);
    EXPECT_EQ(result.maps[1].shares.size(), 64 * result.words.size());
    for (size_t token = 0; token < 64; ++token) {
        float sum = 0;
        for (size_t w = 0; w < 7; ++w) sum += result.maps[0].shares[token * 7 + w];
        EXPECT_GT(sum, 0);
        EXPECT_LT(sum, 1);  // the rest goes to padding
    }
    // Of a picture that is given.
    request.taps = {};
    request.picture = picture();
    const auto found = Lens::run(stream_, model_, request);
    const auto heat = found.heat(found.maps.at(0), {2});
    const auto peak = std::max_element(heat.begin(), heat.end()) - heat.begin();
    EXPECT_THAT(peak / 8, ::testing::AllOf(::testing::Ge(2), ::testing::Le(5)));
    EXPECT_THAT(peak % 8, ::testing::AllOf(::testing::Ge(2), ::testing::Le(5)));
    request.times = {0};
    EXPECT_THAT(error([&] { Lens::run(stream_, model_, request); }), HasSubstr("time 0 found"));
    request.taps = {.by_layer = true, .by_head = true, .by_step = true, .budget = 1000};
    request.times = {0.5f};
    EXPECT_THAT(error([&] { Lens::run(stream_, model_, request); }), HasSubstr("[taps]"));
}

TEST_F(EditTest, WordsAreFoundInAPicture) {
    Refer::Request request{.picture = picture(), .words = "the red apple"};
    request.size = 128;
    request.times = {0.5f};
    const auto found = Refer::run(stream_, model_, request);
    EXPECT_EQ(found.rows * found.columns, 64);
    const auto inside = [](int x, int y) {
        return (x - 64) * (x - 64) + (y - 64) * (y - 64) < 1200;
    };
    EXPECT_TRUE(inside(static_cast<int>(found.peak_x), static_cast<int>(found.peak_y)));
    const auto iou = [&](const Mask& mask) {
        double both = 0, either = 0;
        for (int y = 0; y < 128; ++y)
            for (int x = 0; x < 128; ++x) {
                const bool masked = mask.at(x, y) > 0;
                both += masked && inside(x, y);
                either += masked || inside(x, y);
            }
        return both / either;
    };
    EXPECT_GT(iou(found.mask), 0.6);
    EXPECT_EQ(iou(to_segment(found).mask()), iou(found.mask));
    EXPECT_GT(found.contrast, 0);

    const auto segmenter =
        SegmentModel::load(stream_, FOVEA_SOURCE_DIR "/assets/default", DType::f32);
    SegmentedPicture picture(stream_, segmenter, request.picture);
    for (const auto kind :
         {ReferPrompt::point, ReferPrompt::box, ReferPrompt::point_and_box, ReferPrompt::mask}) {
        const auto refined = picture.ask(refer_prompt(found, kind));
        ASSERT_TRUE(refined) << static_cast<int>(kind);
        EXPECT_GT(iou(refined->mask()), 0.8) << static_cast<int>(kind);
    }

    request.picture = crop(request.picture, {0, 40, 128, 88});  // wider than twice its height
    const auto of_wide = Refer::run(stream_, model_, request);
    EXPECT_EQ(of_wide.rows * of_wide.columns, 64);
    EXPECT_EQ(of_wide.mask.height, 48);

    request.words = "the of";
    EXPECT_THAT(error([&] { Refer::run(stream_, model_, request); }), HasSubstr("names nothing"));
    request.words = "the zorgle";
    EXPECT_THAT(error([&] { Refer::run(stream_, model_, request); }),
                HasSubstr("does not know the word \"zorgle\""));
}

TEST(ReferPrompts, TheBoxIsThatOfThePartWithThePeak) {
    Refer::Result found{.rows = 1, .columns = 1, .mask = mask_of(Box{1, 1, 3, 4}, 12, 8)};
    const auto other = mask_of(Box{5, 2, 11, 8}, 12, 8);
    for (size_t i = 0; i < other.hole.size(); ++i) found.mask.hole[i] |= other.hole[i];
    const auto left = [&](float x, float y) {
        found.peak_x = x;
        found.peak_y = y;
        return refer_prompt(found, ReferPrompt::box).box.value().left;
    };
    EXPECT_EQ(left(2.5f, 2.5f), 1);
    EXPECT_EQ(left(7, 4), 5);
    EXPECT_EQ(left(0.5f, 7.5f), 5);  // in neither: the larger one
    found.mask.hole.assign(found.mask.hole.size(), 0);
    const auto nothing = refer_prompt(found, ReferPrompt::box);
    EXPECT_FALSE(nothing.box);
    ASSERT_EQ(nothing.points.size(), 1u);
    EXPECT_EQ(nothing.points[0].x, found.peak_x);
}

}  // namespace
}  // namespace fovea
