#include "pipelines/inpaint.h"

#include <gmock/gmock.h>

#include <array>

#include "backend/error.h"
#include "pipelines/score.h"
#include "tests/testing.h"

/// Holes of small pictures, the default model, few steps.
namespace fovea {
namespace {

using testing::close;
using testing::device;
using ::testing::Each;
using ::testing::HasSubstr;

/// The model is read once for all.
class InpaintTest : public ::testing::Test {
  protected:
    struct Studio {
        vk::Stream stream{device()};
        Model model = Model::load(stream, FOVEA_SOURCE_DIR "/assets/default", DType::f32);
    };
    static void SetUpTestSuite() { studio_ = new Studio; }
    static void TearDownTestSuite() {
        delete studio_;
        studio_ = nullptr;
    }

    InpaintTest() {
        request_.steps = 2;
        request_.cfg = 1;
        request_.jobs = {{.picture = picture(128, 128),
                          .hole = mask_of(Box{37, 30, 90, 101}, 128, 128),
                          .prompt = "a red apple on a blue background",
                          .seed = 3}};
    }
    /// Blue, lighter to the right, in steps of 1/255.
    static Image picture(int width, int height) {
        Image image{width, height, {}};
        for (int y = 0; y < height; ++y)
            for (int x = 0; x < width; ++x)
                for (const int value : {40, 100 + x / 4, 220})
                    image.rgb.push_back(static_cast<float>(value) / 255);
        return image;
    }
    Inpaint::Result run() { return Inpaint::run(stream(), model(), request_).at(0); }
    std::string error() {
        try {
            run();
        } catch (const Error& error) {
            return error.what();
        }
        return {};
    }
    static vk::Stream& stream() { return studio_->stream; }
    static const Model& model() { return studio_->model; }

    static Studio* studio_;
    Inpaint::Request request_;
};

InpaintTest::Studio* InpaintTest::studio_ = nullptr;

// The tile reaches beyond the picture, where it mirrors the hole.
TEST_F(InpaintTest, HolesAtTheBorderAreNotRead) {
    request_.steps = 1;
    request_.jobs[0].picture = picture(120, 120);
    request_.jobs[0].hole = mask_of(Box{60, 70, 120, 120}, 120, 120);
    const auto first = run();
    for (size_t v = 0; v < first.picture.rgb.size(); ++v)
        if (request_.jobs[0].hole.hole[v / 3])
            request_.jobs[0].picture.rgb[v] = v % 2 == 0 ? NAN : 0.9f;
    EXPECT_EQ(run().picture.rgb, first.picture.rgb);
}

TEST_F(InpaintTest, KnownPixelsStayAndTheHolesAreNotRead) {
    const auto first = run();
    EXPECT_EQ(first.tiles, 1);
    const auto& job = request_.jobs[0];
    const auto shown = decode_image(encode_png(first.picture), "result").rgb;
    int64_t changed = 0;
    for (size_t v = 0; v < shown.size(); ++v) {
        if (job.hole.hole[v / 3])
            changed += shown[v] != job.picture.rgb[v];
        else
            ASSERT_EQ(shown[v], job.picture.rgb[v]) << v;
    }
    EXPECT_GT(changed, job.hole.count());  // of three channels
    for (size_t v = 0; v < shown.size(); ++v)
        if (job.hole.hole[v / 3]) request_.jobs[0].picture.rgb[v] = v % 2 == 0 ? NAN : 0.9f;
    EXPECT_EQ(run().picture.rgb, first.picture.rgb);
}

TEST_F(InpaintTest, SamplersLeaveTheKnownLatentOnItsWay) {
    const Shape shape{1, 16, 16, 12};
    const auto known = testing::random_values(16 * 16 * 12, 5);
    std::vector<float> open(known.size(), 0);
    for (size_t i = 0; i < open.size() / 2; ++i) open[i] = 1;
    const std::array<uint64_t, 1> seeds{7};
    DenoiseRequest request;
    request.prompt = "a cat";
    request.steps = 3;
    request.cfg = 1;
    for (const Sampler sampler : {Sampler::euler, Sampler::heun, Sampler::dpmpp2m})
        for (const char* guidance : {"cfg:1", "cfgzero:1@zero=1"}) {
            request.sampler = sampler;
            request.guidance = parse_guidance(guidance);
            Denoiser denoiser(stream(), model(), request, {16, 16, 12}, seeds);
            denoiser.hold(upload(stream(), known, shape, DType::f32),
                          upload(stream(), open, shape, DType::f32));
            const auto z = to_host(stream(), denoiser.run());
            const auto half = static_cast<std::ptrdiff_t>(known.size() / 2);
            EXPECT_TRUE(testing::close({z.begin() + half, z.end()},
                                       {known.begin() + half, known.end()}, {1e-5f, 1e-5f}))
                << static_cast<int>(sampler) << guidance;
            EXPECT_FALSE(testing::close({z.begin(), z.begin() + half},
                                        {known.begin(), known.begin() + half}, {0.1f, 0.1f}));
        }
}

TEST_F(InpaintTest, APictureIsTheSameInABatch) {
    request_.painta = true;
    request_.steps = 3;  // the second, at 2/3, is its first
    request_.jobs.push_back(request_.jobs[0]);
    request_.jobs[1].seed = 4;
    request_.jobs[1].prompt = "a cat";
    request_.jobs[1].hole = mask_of(Box{0, 0, 60, 128}, 128, 128);
    const auto both = Inpaint::run(stream(), model(), request_);
    Inpaint::Request alone = request_;
    alone.jobs.erase(alone.jobs.begin());
    EXPECT_TRUE(close(Inpaint::run(stream(), model(), alone)[0].picture.rgb, both[1].picture.rgb,
                      testing::tolerance_of_batches(DType::f32)));
    request_.painta = false;
    EXPECT_NE(run().picture.rgb, both[0].picture.rgb);
}

TEST_F(InpaintTest, LargePicturesAreFilledTileByTile) {
    request_.steps = 1;
    auto& job = request_.jobs[0];
    job.picture = picture(330, 120);
    job.hole = mask_of(Box{10, 10, 50, 60}, 330, 120);
    for (int y = 100; y < 120; ++y)
        for (int x = 290; x < 330; ++x) job.hole.at(x, y) = 1;
    std::vector<std::pair<int, int>> progress;
    request_.on_step = [&](int done, int total) { progress.emplace_back(done, total); };
    const auto result = run();
    EXPECT_EQ(result.tiles, 2);
    EXPECT_THAT(progress,
                ::testing::ElementsAre(std::pair(0, 2), std::pair(1, 2), std::pair(2, 2)));
    int64_t changed = 0;
    for (size_t v = 0; v < result.picture.rgb.size(); v += 3) {
        if (job.hole.hole[v / 3])
            changed += result.picture.rgb[v] != job.picture.rgb[v];
        else
            ASSERT_EQ(result.picture.rgb[v], job.picture.rgb[v]) << v;
    }
    EXPECT_GT(changed, job.hole.count() * 9 / 10);
}

TEST_F(InpaintTest, BadRequestsSayWhatIsExpected) {
    request_.jobs[0].hole = mask_of(Box{0, 0, 8, 8}, 120, 128);
    EXPECT_THAT(error(), HasSubstr("the mask has 120×128 pixels, the picture 128×128"));
    request_.jobs[0].hole = mask_of(Box{}, 128, 128);
    EXPECT_THAT(error(), HasSubstr("the mask is empty: white is what will be filled"));
    request_.jobs[0].hole.at(3, 3) = 1;
    request_.window = 300;
    EXPECT_THAT(error(), HasSubstr("window 300 found, expected a multiple of 16 from 256 to 512"));
    request_.window = 512;
    request_.steps = 0;
    EXPECT_THAT(error(), HasSubstr("[inpaint] 0 steps"));
    request_.jobs.clear();
    EXPECT_THAT(error(), HasSubstr("steps"));
}

TEST_F(InpaintTest, CancelEndsIt) {
    std::atomic<bool> cancel = false;
    request_.cancel = &cancel;
    request_.on_step = [&](int done, int) { cancel = cancel || done == 1; };
    EXPECT_THROW(run(), Cancelled);
}

}  // namespace
}  // namespace fovea
