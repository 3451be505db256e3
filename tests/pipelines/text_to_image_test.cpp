#include "pipelines/text_to_image.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "backend/error.h"
#include "tests/testing.h"

/// The default model at its smallest size and few steps: what must hold for every picture.
namespace fovea {
namespace {

using testing::device;

class TextToImageTest : public ::testing::Test {
  protected:
    TextToImageTest()
        : stream_(device()),
          model_(Model::load(stream_, FOVEA_SOURCE_DIR "/assets/default", DType::f32)) {
        request_.prompt = "a red apple on a blue background";
        request_.width = request_.height = 128;
        request_.steps = 2;
        request_.seeds = {7};
    }

    std::vector<Image> run() { return TextToImage::run(stream_, model_, request_); }
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
    TextToImage::Request request_;
};

TEST_F(TextToImageTest, SameSeedSameBits) {
    const auto first = run(), second = run();
    ASSERT_EQ(first.size(), 1u);
    EXPECT_EQ(first[0].width, 128);
    EXPECT_EQ(first[0].rgb, second[0].rgb);
    request_.seeds = {8};
    EXPECT_NE(run()[0].rgb, first[0].rgb);
}

TEST_F(TextToImageTest, APictureDoesNotDependOnItsBatch) {
    const auto alone = run();
    request_.seeds = {3, 7};
    const auto together = run();
    ASSERT_EQ(together.size(), 2u);
    EXPECT_EQ(together[1].rgb, alone[0].rgb);
}

TEST_F(TextToImageTest, MorePicturesThanABatchHolds) {
    request_.steps = 1;
    request_.cfg = 1;
    const auto alone = run();
    request_.seeds.assign(TextToImage::kMaxBatch + 1, 3);
    request_.seeds.back() = 7;
    int steps = 0;
    request_.on_step = [&](int done, int total) {
        EXPECT_EQ(total, 2);
        steps = std::max(steps, done);
    };
    const auto many = run();
    ASSERT_EQ(many.size(), request_.seeds.size());
    EXPECT_EQ(steps, 2);
    EXPECT_EQ(many.back().rgb, alone[0].rgb);
    EXPECT_EQ(many[0].rgb, many[1].rgb);
}

TEST_F(TextToImageTest, ThePromptMatters) {
    const auto apple = run();
    request_.prompt = "a green frog on a white background";
    EXPECT_LT(psnr(run()[0], apple[0]), 30);
}

TEST_F(TextToImageTest, EachPictureMayHaveItsPrompt) {
    request_.guidance = parse_guidance("cfg:3,pag:1@blocks=6");
    const auto apple = run();
    request_.seeds = {3, 7};
    request_.each_prompt = {"a green frog on a white background", request_.prompt};
    const auto both = run();
    EXPECT_EQ(both[1].rgb, apple[0].rgb);
    EXPECT_LT(psnr(both[0], apple[0]), 30);
    request_.seeds = {7};
    EXPECT_NE(error().find("2 prompts found for 1 seeds"), std::string::npos) << error();
}

TEST_F(TextToImageTest, CfgZeroStandsStillAtFirst) {
    request_.guidance = parse_guidance("cfgzero:1@zero=1");
    const auto still = run();
    request_.guidance = parse_guidance("cfg:1");
    EXPECT_NE(run()[0].rgb, still[0].rgb);
    request_.guidance = parse_guidance("cfgzero:1@zero=2");
    EXPECT_NE(error().find("zero=2"), std::string::npos) << error();
}

TEST_F(TextToImageTest, EntropyScaleActsAwayFromTheTrainedSize) {
    const auto plain = run();
    request_.entropy_scale = true;
    EXPECT_NE(run()[0].rgb, plain[0].rgb);
}

TEST_F(TextToImageTest, ABoxHoldsItsThing) {
    request_.steps = 4;
    request_.boxes = {{"apple", 0, 0, 64, 64}};
    int last = 0, all = 0;
    request_.on_step = [&](int done, int total) {
        EXPECT_EQ(done, done == 0 ? 0 : last + 1);
        last = done;
        all = total;
    };
    const auto alone = run();
    EXPECT_EQ(last, all);
    EXPECT_EQ(all, 5);  // two of drafts, then the last three of four
    double red[2] = {0, 0};
    for (size_t i = 0; i < alone[0].rgb.size(); i += 3) {
        const size_t x = i / 3 % 128, y = i / 3 / 128;
        red[x < 64 && y < 64] +=
            std::max(0.0f, alone[0].rgb[i] - alone[0].rgb[i + 2]) / (x < 64 && y < 64 ? 1 : 3);
    }
    EXPECT_GT(red[1], 4 * red[0]);
    request_.seeds = {3, 7};
    EXPECT_EQ(run()[1].rgb, alone[0].rgb);  // whatever else is in the batch
}

// Striped as no apple is: what stays of the stripes comes from the picture.
TEST_F(TextToImageTest, ASubjectLooksLikeItsPicture) {
    request_.steps = 4;
    request_.boxes = {{"apple", 16, 32, 80, 96}};
    Subject subject{"apple", {64, 64, {}}, {}};
    for (int y = 0; y < 64; ++y)
        for (int x = 0; x < 64; ++x) {
            const bool light = x / 16 % 2 == 0;
            for (const float value : {light ? 1.0f : 0.1f, light ? 0.9f : 0.4f, 0.1f})
                subject.picture.rgb.push_back(value);
            subject.opacity.push_back(std::hypot(x - 31.5, y - 31.5) < 32 ? 1.0f : 0.0f);
        }
    const auto likeness = [&](const Image& picture) {
        double error = 0, count = 0;
        for (size_t i = 0; i < subject.opacity.size(); ++i) {
            if (subject.opacity[i] == 0) continue;
            const size_t at = (i / 64 + 32) * 128 + i % 64 + 16;
            for (size_t c = 0; c < 3; ++c) {
                const double d = picture.rgb[3 * at + c] - subject.picture.rgb[3 * i + c];
                error += d * d;
            }
            count += 3;
        }
        return -10 * std::log10(error / count);
    };
    EXPECT_LT(likeness(run()[0]), 10);
    request_.subjects = {subject};
    int last = 0, all = 0;
    request_.on_step = [&](int done, int total) {
        last = done;
        all = total;
    };
    const auto alone = run();
    EXPECT_EQ(last, all);
    EXPECT_GT(likeness(alone[0]), 15);
    request_.seeds = {3, 7};
    EXPECT_EQ(run()[1].rgb, alone[0].rgb);  // whatever else is in the batch
    request_.subjects[0].name = "frog";
    EXPECT_NE(error().find("\"frog\" has no box"), std::string::npos) << error();
    request_.subjects = {subject, subject};
    EXPECT_NE(error().find("several pictures"), std::string::npos) << error();
    request_.subjects = {subject};
    request_.boxes = {{"apple", 0, 0, 6, 6}};
    EXPECT_NE(error().find("too small"), std::string::npos) << error();
}

TEST_F(TextToImageTest, BoxesThatCannotBeSayWhy) {
    request_.boxes = {{"dragon", 0, 0, 64, 64}};
    EXPECT_NE(error().find("\"dragon\" is not in the prompt"), std::string::npos) << error();
    request_.boxes = {{"apple", 0, 0, 64, 129}};
    EXPECT_NE(error().find("beyond the picture of 128x128"), std::string::npos) << error();
    request_.boxes = {{"apple", 0, 0, 64, 64}};
    request_.each_prompt = {request_.prompt};
    EXPECT_NE(error().find("one for all"), std::string::npos) << error();
}

TEST_F(TextToImageTest, EverySamplerGivesAPicture) {
    for (const Sampler sampler : {Sampler::euler, Sampler::heun, Sampler::dpmpp2m}) {
        request_.sampler = sampler;
        EXPECT_EQ(error(), "") << static_cast<int>(sampler);
    }
}

TEST_F(TextToImageTest, APatternReplacesTheModels) {
    const auto own = run();
    request_.pattern = "neighborhood:7x7";
    const auto local = run();
    EXPECT_NE(local[0].rgb, own[0].rgb);
    request_.pattern = "no-such-pattern";
    EXPECT_NE(error().find("dense"), std::string::npos);
}

TEST_F(TextToImageTest, OddSizesWork) {
    request_.width = 176;
    request_.height = 144;
    const auto picture = run();
    EXPECT_EQ(picture[0].width, 176);
    EXPECT_EQ(picture[0].height, 144);
}

TEST_F(TextToImageTest, ReportsStepsAndPreviews) {
    int steps = 0, previews = 0;
    request_.steps = 3;
    request_.preview_every = 1;
    request_.on_step = [&](int done, int total) { steps = std::max(steps, done * 10 + total); };
    request_.on_preview = [&](int, const std::vector<Image>& images) {
        previews += static_cast<int>(images.size());
    };
    run();
    EXPECT_EQ(steps, 33);
    EXPECT_EQ(previews, 2);  // the last step's picture is the result
}

TEST_F(TextToImageTest, BadRequestsSayWhatIsExpected) {
    request_.width = 100;
    EXPECT_NE(error().find("multiple of 16"), std::string::npos) << error();
    request_.width = 4096;
    EXPECT_NE(error().find("512"), std::string::npos) << error();
    request_.width = 128;
    request_.steps = 0;
    EXPECT_NE(error().find("steps"), std::string::npos) << error();
}

TEST_F(TextToImageTest, ABrokenPictureIsAnError) {
    request_.cfg = 1e30f;  // overflows on the first step
    EXPECT_NE(error().find("NaN"), std::string::npos) << error();
}

TEST_F(TextToImageTest, CancelStopsBetweenSteps) {
    std::atomic<bool> cancel = false;
    request_.cancel = &cancel;
    request_.on_step = [&](int done, int) { cancel = cancel || done == 1; };
    EXPECT_THROW(run(), Cancelled);
}

TEST_F(TextToImageTest, HalfPrecisionStaysClose) {
    const auto full = run();
    const Model half = Model::load(stream_, FOVEA_SOURCE_DIR "/assets/default", DType::f16);
    EXPECT_GT(psnr(TextToImage::run(stream_, half, request_)[0], full[0]), 35);
}

TEST_F(TextToImageTest, ProbeMeasures) {
    const auto probe = TextToImage::probe(stream_, model_, request_);
    EXPECT_GT(probe.step_seconds, 0);
    EXPECT_GT(probe.decode_seconds, 0);
    EXPECT_GT(probe.peak_bytes, 20u << 20);  // at least the weights
}

}  // namespace
}  // namespace fovea
