#include <gmock/gmock.h>

#include <cmath>
#include <fstream>

#include "backend/error.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/permute.h"
#include "backend/reference/attention.h"
#include "backend/reference/merge.h"
#include "backend/reference/rescale.h"
#include "tests/testing.h"
#include "tests/vision/temporary_folder.h"
#include "vision/methods/calibration.h"
#include "vision/methods/entropy.h"
#include "vision/methods/method.h"
#include "vision/methods/parse.h"
#include "vision/weights.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;
using ::testing::HasSubstr;

constexpr int64_t kFrames = 4, kRows = 4, kColumns = 8, kTokens = kFrames * kRows * kColumns;
constexpr int64_t kHeads = 2, kDim = 16;
const Grid kGrid{{kFrames, kRows, kColumns}};
const DitConfig kModel{.heads = kHeads, .layers = 3};
const DitGrid kDitGrid{kFrames, kRows, kColumns};

struct Host {
    std::vector<float> q, k, v;  // (heads, tokens, dim)
};

Host host(uint32_t seed) {
    const auto random = [&](uint32_t n) {
        return testing::random_values(kHeads * kTokens * kDim, 10 * seed + n);
    };
    return {random(1), random(2), random(3)};
}

SelfAttention on_device(vk::Stream& stream, const Host& x, int64_t layer = 0) {
    const auto up = [&](const std::vector<float>& values) {
        return permute(stream, upload(stream, values, {1, kHeads, kTokens, kDim}, DType::f32),
                       {0, 2, 1, 3});
    };
    return {layer, up(x.q), up(x.k), up(x.v)};
}

std::vector<float> heads_first(vk::Stream& stream, const Tensor& o) {
    return to_host(stream, permute(stream, o, {0, 2, 1, 3}));
}

reference::AttentionResult expected(const Host& x, const Pattern& pattern) {
    return reference::attention(x.q, x.k, x.v, pattern,
                                {.heads = kHeads,
                                 .kv_heads = kHeads,
                                 .q_len = kTokens,
                                 .kv_len = kTokens,
                                 .head_dim = kDim});
}

const Pattern kWindow = neighborhood(kGrid, {.window = {4, 3, 3}});
constexpr double kWindowShare = 9.0 / (kRows * kColumns);
constexpr testing::Tolerance kClose{1e-4f, 1e-4f};

TEST(AttentionMethods, DenseStepsAndLayersComeBeforeThePattern) {
    vk::Stream stream(device());
    const Host x = host(1);
    const auto method = with_dense(pattern_method(kWindow), 1, {0});
    const auto dense_o = expected(x, dense()).o, window_o = expected(x, kWindow).o;
    for (int step = 0; step < 2; ++step) {
        method->begin_step(step, 2);
        for (int64_t layer = 0; layer < 2; ++layer)
            EXPECT_TRUE(
                close(heads_first(stream, method->attention(stream, on_device(stream, x, layer))),
                      step == 1 && layer == 1 ? window_o : dense_o, kClose))
                << step << " " << layer;
    }
    EXPECT_NEAR(method->density(stream), (3 + kWindowShare) / 4, 1e-6);
}

TEST(AttentionMethods, ReuseAddsWhatThePatternMissedAtTheLastDenseStep) {
    vk::Stream stream(device());
    const Host before = host(1), now = host(2);
    const auto method =
        reuse_method([](int64_t, int, int) { return kWindow; }, {.every = 2, .growth = 0.1f});
    const auto run = [&](int step, const Host& x) {
        method->begin_step(step, 4);
        return heads_first(stream, method->attention(stream, on_device(stream, x)));
    };
    const auto all = expected(before, dense()), seen = expected(before, kWindow);
    EXPECT_TRUE(close(run(0, before), all.o, kClose));
    const auto ratio = reference::range_mass(seen.lse, all.lse);
    const auto residual = reference::rescale(seen.o, ratio, all.o, 0, true);
    EXPECT_TRUE(close(run(1, now),
                      reference::rescale(expected(now, kWindow).o, ratio, residual, 0.1f), kClose));
    EXPECT_TRUE(close(run(2, now), expected(now, dense()).o, kClose));  // dense again
    EXPECT_NEAR(method->density(stream), (2 + 3 * kWindowShare) / 3, 1e-6);
}

TEST(AttentionMethods, RectifiedCountsTheBlocksItKept) {
    vk::Stream stream(device());
    const auto method = rectified_method({.grid = kGrid, .block = 16, .keep = 1, .mass = 0});
    method->begin_step(0, 1);
    const Host x = host(1);
    EXPECT_TRUE(close(heads_first(stream, method->attention(stream, on_device(stream, x))),
                      expected(x, dense()).o, kClose));
    EXPECT_EQ(method->density(stream), 1);
}

TEST(Methods, AreMadeByName) {
    vk::Stream stream(device());
    const Host x = host(1);
    for (const char* name :
         {"dense", "neighborhood:4x3x3", "radial:block=16:thinning=16",
          "rectified:keep=0.5:block=16", "rettention:every=3:of=neighborhood:0x3x3:stride=1x1x1"}) {
        ClipMethod method = make_method({.pattern = name}, kModel, kDitGrid);
        const DitHooks hooks = method.hooks(0, 2);
        const SelfAttention in = on_device(stream, x);
        EXPECT_EQ(hooks.attention(stream, 0, in.q, in.k, in.v).shape(), in.q.shape()) << name;
        EXPECT_FALSE(hooks.part) << name;
    }
    const auto refused = [](const MethodRequest& request) -> std::string {
        try {
            make_method(request, kModel, kDitGrid);
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_THAT(refused({.pattern = "rectified:keeps=0.5"}), HasSubstr("expected block, keep"));
    EXPECT_THAT(refused({.pattern = "rectified:keep=x"}), HasSubstr("where a number is expected"));
    for (const char* value : {"nan", "inf"})
        EXPECT_THAT(refused({.pattern = std::string("rettention:growth=") + value + ":of=dense"}),
                    HasSubstr("where a number is expected"));
    EXPECT_THAT(refused({.pattern = "rettention"}), HasSubstr("a pattern is missing"));
    EXPECT_THAT(refused({.pattern = "reordered"}), HasSubstr("fovea calibrate"));
    EXPECT_THAT(refused({.pattern = "spiral"}), HasSubstr("expected one of"));
    EXPECT_THAT(refused({.cache = "thresholds"}), HasSubstr("runs or threshold"));
    EXPECT_THAT(refused({.cache = "runs:from=2:to=3"}), HasSubstr("some of 0 to 2"));
}

/// Head 0 attends along time, head 1 within a frame.
SelfAttention structured(vk::Stream& stream) {
    Host x = host(1);
    for (int64_t h = 0; h < kHeads; ++h)
        for (int64_t t = 0; t < kTokens; ++t) {
            const int64_t frame = t / (kRows * kColumns), place = t % (kRows * kColumns);
            const auto code =
                testing::random_values(kDim, static_cast<uint32_t>(h == 0 ? place : 1000 + frame));
            for (int64_t c = 0; c < kDim; ++c)
                x.q[(h * kTokens + t) * kDim + c] = x.k[(h * kTokens + t) * kDim + c] =
                    2 * code[static_cast<size_t>(c)];
        }
    return on_device(stream, x);
}

MassSettings settings() {
    return {.grid = {kFrames, kRows, kColumns},
            .layers = 1,
            .heads = kHeads,
            .block = 16,
            .range_ends = {0.5f, 1}};
}

TEST(Calibration, FindsTheOrderInWhichAttentionFallsIntoBlocks) {
    vk::Stream stream(device());
    Calibrator calibrator(settings());
    EXPECT_THROW(calibrator.choose(0.3), Error);  // nothing measured
    const SelfAttention x = structured(stream);
    for (int step = 0; step < 2; ++step) {
        calibrator.begin_step(step, 2);
        calibrator.attention(stream, x);
    }
    const Calibration c = calibrator.choose(0.25);
    // Along time: 16 tokens that hold all frames of a few places.
    EXPECT_THAT(c.orders[0], ::testing::AnyOf(AxisOrder::hwf, AxisOrder::whf, AxisOrder::wfh));
    EXPECT_TRUE(c.orders[1] == AxisOrder::fhw || c.orders[1] == AxisOrder::fwh)
        << name_of(c.orders[1]);
    EXPECT_LE(c.density(), 0.25);
    EXPECT_GT(c.density(), 0.22);
    EXPECT_GT(calibrator.kept_mass(c), 0.95);
    EXPECT_NEAR(kept_share(c.pattern(0, 0, 2), kTokens), c.density(0), 1e-6);
    EXPECT_EQ(c.schedule()(0, 1, 2).key(), c.pattern(0, 1, 2).key());
}

TEST(Calibration, RefusesWhatCannotBe) {
    const auto refused = [](auto change) -> std::string {
        MassSettings s = settings();
        change(s);
        try {
            Calibrator{s};
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_EQ(refused([](MassSettings& s) { s.block = kTokens; }), "");
    for (const uint32_t block : {0u, static_cast<uint32_t>(kTokens) + 1, 4'000'000'000u})
        EXPECT_THAT(refused([&](MassSettings& s) { s.block = block; }),
                    HasSubstr(std::to_string(block)));
    for (const std::vector<float>& ends :
         {std::vector<float>{-1, 1}, {0, 1}, {NAN, 1}, {0.5f, NAN, 1}, {0.5f, 0.5f, 1}, {0.5f}})
        EXPECT_THAT(refused([&](MassSettings& s) { s.range_ends = ends; }), HasSubstr("ascend"));
}

TEST(Calibration, ComesBackFromItsFile) {
    vk::Stream stream(device());
    Calibrator calibrator(settings());
    const SelfAttention x = structured(stream);
    for (int step = 0; step < 2; ++step) {
        calibrator.begin_step(step, 2);
        calibrator.attention(stream, x);
    }
    Calibration c = calibrator.choose(0.4);
    c.notes["prompt"] = "a red heart";
    const TemporaryFolder folder;
    const auto path = folder.path() / "masks.safetensors";
    save_calibration(path, c);
    const Calibration back = load_calibration(path);
    EXPECT_EQ(back.orders, c.orders);
    EXPECT_EQ(back.masks, c.masks);
    EXPECT_EQ(back.notes, c.notes);
    EXPECT_EQ(back.settings.range_ends, c.settings.range_ends);
    const DitConfig model{.heads = kHeads, .layers = 1};
    const MethodRequest request{.pattern = "reordered", .calibration = path.string()};
    EXPECT_TRUE(make_method(request, model, kDitGrid).attention);
    const auto refused = [&](const DitConfig& config, const DitGrid& grid) -> std::string {
        try {
            make_method(request, config, grid);
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_THAT(refused(kModel, kDitGrid), HasSubstr("for 1 layers of 2 heads"));
    EXPECT_THAT(refused(model, {8, 4, 4}), HasSubstr("calibrate at its size"));
    const NamedTensor other[] = {{"orders", StoredType::U8, {1}, {0}}};
    write_safetensors(path, other);
    EXPECT_THROW(load_calibration(path), Error);
}

/// A model of three layers whose parts add one number each, and counts them.
struct Counted {
    vk::Stream& stream;
    FeatureCache& cache;
    int parts = 0;

    std::vector<float> forward(int step, int steps, float x, float add_each) {
        cache.begin_step(step, steps);
        const Tensor in = upload(stream, std::vector<float>{x, 2 * x}, {1, 2}, DType::f32);
        const Tensor each =
            upload(stream, std::vector<float>{add_each, -add_each}, {1, 2}, DType::f32);
        const auto sum = [&] {
            Tensor y = in;
            for (int64_t layer = 0; layer < 3; ++layer)
                for (const auto kind :
                     {DitPart::Kind::attention, DitPart::Kind::cross, DitPart::Kind::mlp}) {
                    const Tensor from = y;
                    y = cache.part(stream, {kind, layer, from, [&] { return from; },
                                            [&] {
                                                ++parts;
                                                return add(stream, from, each);
                                            }});
                }
            return y;
        };
        return to_host(stream,
                       cache.part(stream, {DitPart::Kind::blocks, 0, in, [&] { return in; }, sum}));
    }
};

TEST(FeatureCaches, RunsOfLayersAreSkippedBetweenSteps) {
    vk::Stream stream(device());
    const auto cache = run_cache(3, {.layers = {1, 2}, .every = 3, .first = 1});
    Counted model{stream, *cache};
    using ::testing::ElementsAre;
    EXPECT_THAT(model.forward(0, 5, 1, 1), ElementsAre(10, -7));
    EXPECT_THAT(model.forward(1, 5, 1, 2), ElementsAre(19, -16));
    EXPECT_EQ(model.parts, 18);
    // Layer 0 adds 3 · 3, the run what it added at step 1: 6 · 2.
    EXPECT_THAT(model.forward(2, 5, 1, 3), ElementsAre(22, -19));
    EXPECT_THAT(model.forward(3, 5, 1, 3), ElementsAre(22, -19));
    EXPECT_EQ(model.parts, 24);
    EXPECT_THAT(model.forward(4, 5, 1, 3), ElementsAre(28, -25));
    EXPECT_EQ(model.parts, 33);
    EXPECT_NEAR(cache->computed(), 1 - 4.0 / 15, 1e-12);
}

TEST(FeatureCaches, AThresholdDecidesWhenAllIsComputed) {
    vk::Stream stream(device());
    const auto cache = threshold_cache(0.25);
    Counted model{stream, *cache};
    using ::testing::ElementsAre;
    EXPECT_THAT(model.forward(0, 6, 1, 1), ElementsAre(10, -7));
    EXPECT_THAT(model.forward(1, 6, 1.1f, 2),  // changed by 0.1
                ElementsAre(::testing::FloatEq(10.1f), ::testing::FloatEq(-6.8f)));
    EXPECT_EQ(model.parts, 9);
    model.forward(2, 6, 1.21f, 2);  // 0.2 in all
    EXPECT_EQ(model.parts, 9);
    model.forward(3, 6, 1.331f, 2);  // 0.3
    EXPECT_EQ(model.parts, 18);
    model.forward(4, 6, 1.331f, 2);
    EXPECT_EQ(model.parts, 18);
    model.forward(5, 6, 1.331f, 2);  // the last step
    EXPECT_EQ(model.parts, 27);
    EXPECT_DOUBLE_EQ(cache->computed(), 0.5);
}

// The tiny model: trained on pictures of 6x6 and clips of 3x2x2 tokens, windows of 3x3 in layer 0,
// everything in layer 1.
TEST(Entropy, LogitsAreScaledByTheirKeys) {
    vk::Stream stream(device());
    const Dit dit(stream, Weights::open(FOVEA_SOURCE_DIR "/tests/golden/models/dit.safetensors"),
                  DType::f32);
    const auto trained = entropy_factors(dit, {1, 6, 6}),
               larger = entropy_factors(dit, {1, 12, 12}), clip = entropy_factors(dit, {4, 2, 2});
    EXPECT_THAT(trained, ::testing::ElementsAre(1, 1));
    EXPECT_EQ(larger[0], 1);  // nine keys, as before
    EXPECT_FLOAT_EQ(larger[1], static_cast<float>(std::sqrt(std::log(144.0) / std::log(36.0))));
    EXPECT_FLOAT_EQ(clip[0], static_cast<float>(std::sqrt(std::log(16.0) / std::log(12.0))));

    const DitHooks base = hooks_by({dense(), dense()});
    const auto random = [&](uint32_t seed) {
        return upload(stream, testing::random_values(9 * 2 * 8, seed), {1, 9, 2, 8}, DType::f32);
    };
    const Tensor q = random(1), k = random(2), v = random(3);
    const auto own = with_entropy_scale(base, {1, 1.5f});
    EXPECT_EQ(to_host(stream, own.attention(stream, 0, q, k, v)),
              to_host(stream, base.attention(stream, 0, q, k, v)));
    EXPECT_TRUE(
        close(to_host(stream, own.attention(stream, 1, q, k, v)),
              to_host(stream, attend(stream, q, k, v, dense(), {.scale = 1.5f / std::sqrt(8.0f)})),
              {2e-5f, 2e-5f}));
}

}  // namespace
}  // namespace fovea
