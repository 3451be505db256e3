#include "pipelines/text_to_video.h"

#include <gmock/gmock.h>

#include <cmath>

#include "tests/testing.h"

/// The default model with the shortest clip and a step or two, without guidance where that changes
/// nothing: what must hold for every clip.
namespace fovea {
namespace {

using ::testing::AllOf;
using testing::device;
using ::testing::HasSubstr;

class TextToVideoTest : public ::testing::Test {
  protected:
    TextToVideoTest()
        : stream_(device()),
          model_(Model::load(stream_, FOVEA_SOURCE_DIR "/assets/default", DType::f32)) {
        request_.prompt = "a red apple on a blue background";
        request_.frames = 8;
        request_.steps = 1;
        request_.cfg = 1;
        request_.seed = 7;
    }

    std::vector<Image> run() { return TextToVideo::run(stream_, model_, request_).frames; }
    std::string error() {
        try {
            run();
        } catch (const Error& error) {
            return error.what();
        }
        return {};
    }

    vk::Stream stream_;
    Model model_;
    TextToVideo::Request request_;
};

TEST_F(TextToVideoTest, SameSeedSameBitsWithAndWithoutPreviews) {
    request_.steps = 2;
    const auto first = run();
    ASSERT_EQ(first.size(), 8u);
    EXPECT_EQ(first[0].width, 128);
    EXPECT_NE(first[0].rgb, first[7].rgb);

    int steps = 0;
    size_t shown = 0;
    request_.preview_every = 1;
    request_.preview_frames = 2;
    request_.on_step = [&](int done, int total) { steps = std::max(steps, done * 10 + total); };
    request_.on_preview = [&](int step, const std::vector<Image>& frames) {
        EXPECT_EQ(step, 1);
        shown += frames.size();
    };
    const auto second = run();
    for (size_t i = 0; i < first.size(); ++i) EXPECT_EQ(first[i].rgb, second[i].rgb);
    EXPECT_EQ(steps, 44);  // two of denoising, two of decoding four frames
    EXPECT_EQ(shown, 2u);
}

TEST_F(TextToVideoTest, AClipBeginsWithItsPicture) {
    // Larger than the clip: it is resized.
    Image picture{.width = 256, .height = 256, .rgb = {}};
    for (int y = 0; y < 256; ++y)
        for (int x = 0; x < 256; ++x) {
            const bool in = std::hypot(x - 100, y - 130) < 60;
            picture.rgb.insert(picture.rgb.end(), {in ? 0.9f : 0.2f, 0.3f, in ? 0.2f : 0.8f});
        }
    request_.first_frame = picture;
    request_.cfg = 3;
    const auto frames = run();
    const Image shown = resize(picture, 128, 128);
    EXPECT_GT(psnr(frames[0], shown), 25);  // what the autoencoder keeps of it
    EXPECT_LT(psnr(frames[7], shown), psnr(frames[0], shown) - 3);
}

TEST_F(TextToVideoTest, AMethodSavesWhatItSays) {
    request_.method = {.pattern = "neighborhood:1x0x0", .dense_layers = {0, 7}};
    const auto result = TextToVideo::run(stream_, model_, request_);
    EXPECT_NEAR(result.density, (2 + 6.0 / 8) / 8, 1e-6);  // 6 layers see one of 8 frames
    EXPECT_EQ(result.computed, 1);
    EXPECT_STREQ(auto_pattern({8, 8, 8}), "dense");
    EXPECT_STREQ(auto_pattern({16, 16, 16}), kAutoPattern);
}

TEST_F(TextToVideoTest, GuidanceGoesWithMethodsOrSaysWhyNot) {
    request_.steps = 2;
    request_.guidance = parse_guidance("pag:1@blocks=6-7");
    request_.method = {.pattern = "neighborhood:1x0x0", .cache = "runs:every=2:first=0"};
    EXPECT_EQ(TextToVideo::run(stream_, model_, request_).computed, 0.75);
    const auto refusal = [&](const char* guidance, const MethodRequest& method) {
        request_.guidance = parse_guidance(guidance);
        request_.method = method;
        return error();
    };
    EXPECT_THAT(refusal("skip:1", {.cache = "runs"}), HasSubstr("expected no skip"));
    EXPECT_THAT(refusal("cfg:3@steps=0-0.5", {.cache = "runs"}), HasSubstr("at every step"));
    EXPECT_THAT(refusal("cfg:3,pag:1", {.pattern = "rettention:of=neighborhood:1x0x0"}),
                HasSubstr("cfg, apg or cfgzero alone"));
    EXPECT_THAT(refusal("softpag:1", {.pattern = "rectified"}), HasSubstr("strengths of single"));
}

TEST_F(TextToVideoTest, BadRequestsSayWhatIsExpected) {
    request_.frames = 7;
    EXPECT_THAT(error(), HasSubstr("8 to 24"));
    request_.frames = 25;
    EXPECT_THAT(error(), HasSubstr("8 to 24"));
    request_.frames = 8;
    request_.width = 100;
    EXPECT_THAT(error(), HasSubstr("multiple of 16"));
    request_.width = 128;
    request_.method.pattern = "spiral";
    EXPECT_THAT(error(), HasSubstr("radial"));
}

TEST_F(TextToVideoTest, MemoryIsForeseen) {
    request_.height = 176;
    request_.cfg = 3;
    vk::Device own;  // peaks are of a device's whole life
    {
        vk::Stream stream(own);
        const Model model = Model::load(stream, FOVEA_SOURCE_DIR "/assets/default", DType::f32);
        stream.wait();
        const auto foreseen =
            static_cast<double>(TextToVideo::memory(stream, model, request_).total());
        TextToVideo::run(stream, model, request_);
        const auto peak = static_cast<double>(own.peak_allocated());
        EXPECT_GE(foreseen, 0.95 * peak);
        EXPECT_LE(foreseen, 1.3 * peak);
    }
    own.finish_pipelines();
}

TEST_F(TextToVideoTest, WhatDoesNotFitIsRefusedWithWhatWould) {
    request_.frames = 16;
    const auto refusal = [&](uint64_t available) -> std::string {
        try {
            TextToVideo::require_fits(stream_, model_, request_, available);
        } catch (const Error& error) {
            return error.what();
        }
        return {};
    };
    const uint64_t need = TextToVideo::memory(stream_, model_, request_).total();
    EXPECT_EQ(refusal(need), "");
    EXPECT_THAT(refusal(need - 1), HasSubstr("15 frames at 128x128 would fit"));
    EXPECT_THAT(refusal(1 << 20), HasSubstr("No clip fits"));
    request_.width = 512;  // smaller where fewer frames do not suffice
    EXPECT_THAT(refusal(need), AllOf(HasSubstr(" 16 frames at "), HasSubstr("x128 would fit")));
    request_.height = 512;
    request_.frames = 24;
    request_.cfg = 3;
    const uint64_t large = TextToVideo::memory(stream_, model_, request_).total();
    EXPECT_GT(large, need);
    if (device().info().limits.storage_buffer_range < (160u << 20)) {
        EXPECT_THAT(refusal(large), HasSubstr("tensor"));
    }
}

}  // namespace
}  // namespace fovea
