#include "vision/taps/inject.h"

#include <gmock/gmock.h>

#include <cmath>

#include "backend/error.h"
#include "backend/reference/probabilities.h"
#include "tests/testing.h"
#include "vision/taps/word_mask.h"

/// Injection into random queries, keys and values against whole maps on the host, and masks.
namespace fovea {
namespace {

using reference::MapShape;
using testing::close;
using testing::device;

constexpr testing::Tolerance kClose{3e-5f, 3e-5f};
constexpr size_t kBatch = 4, kTokens = 20, kHeads = 2, kDim = 16;

struct Values {
    std::vector<float> host;
    Tensor device;
};

class InjectTest : public ::testing::Test {
  protected:
    InjectTest() : stream_(device()) {}

    Values random(size_t tokens) {
        Values x;
        x.host = testing::random_values(kBatch * tokens * kHeads * kDim, ++seed_);
        x.device = upload(stream_, x.host, {kBatch, static_cast<int64_t>(tokens), kHeads, kDim},
                          DType::f32);
        return x;
    }
    static std::vector<float> map_of(const Values& q, const Values& k, size_t keys) {
        return reference::probabilities(q.host, k.host, {kBatch, kTokens, keys, kHeads, kDim},
                                        1 / std::sqrt(double{kDim}));
    }
    static std::vector<float> times(const std::vector<float>& map, const Values& v, size_t keys) {
        return reference::weighted_values(map, v.host, {kBatch, kTokens, keys, kHeads, kDim});
    }
    static DitHooks::Attention everything() {
        return [](vk::Stream& stream, int64_t, const Tensor& q, const Tensor& k, const Tensor& v) {
            return attend(stream, q, k, v, dense());
        };
    }

    uint32_t seed_ = 0;
    vk::Stream stream_;
};

TEST_F(InjectTest, CrossMapsAreMixed) {
    constexpr size_t kLength = 6, kSource = 2, kTarget = 0;
    const Values q = random(kTokens), k = random(kLength), v = random(kLength);
    const auto mapping = testing::random_values(kLength * kLength, 90);
    const auto own = testing::random_values(kLength, 91);
    auto map = map_of(q, k, kLength);
    const size_t each = kHeads * kTokens * kLength;
    const std::vector<float> before = map;
    for (size_t row = 0; row < each; row += kLength)
        for (size_t j = 0; j < kLength; ++j) {
            double sum = double{own[j]} * before[kTarget * each + row + j];
            for (size_t i = 0; i < kLength; ++i)
                sum += double{mapping[i * kLength + j]} * before[kSource * each + row + i];
            map[kTarget * each + row + j] = static_cast<float>(sum);
        }
    const auto hook = inject_cross({.source = kSource,
                                    .target = kTarget,
                                    .mapping = upload(stream_, mapping, {6, 6}, DType::f32),
                                    .own = upload(stream_, own, {6}, DType::f32)});
    EXPECT_TRUE(close(to_host(stream_, hook(stream_, 0, q.device, k.device, v.device)),
                      times(map, v, kLength), kClose));
}

TEST_F(InjectTest, SelfMapsAreBlendedByTheMask) {
    const Values q = random(kTokens), k = random(kTokens), v = random(kTokens);
    std::vector<float> mask(kTokens);
    for (size_t i = 0; i < kTokens; ++i) mask[i] = static_cast<float>(i % 3) / 2;
    const std::vector<std::pair<int64_t, int64_t>> pairs{{0, 1}, {2, 3}};
    for (const bool masked : {true, false}) {
        auto map = map_of(q, k, kTokens);
        const size_t each = kHeads * kTokens * kTokens;
        for (const auto& [source, target] : pairs)
            for (size_t at = 0; at < each; ++at) {
                const float m = masked ? mask[at / kTokens % kTokens] : 0;
                float& own = map[static_cast<size_t>(target) * each + at];
                own = m * own + (1 - m) * map[static_cast<size_t>(source) * each + at];
            }
        const auto hook =
            inject_self({.pairs = pairs,
                         .mask = masked ? upload(stream_, mask, {kTokens}, DType::f32) : Tensor()},
                        everything());
        EXPECT_TRUE(close(to_host(stream_, hook(stream_, 0, q.device, k.device, v.device)),
                          times(map, v, kTokens), kClose))
            << masked;
    }
}

TEST_F(InjectTest, MaskedTokensLookAtTheReference) {
    const Values q = random(kTokens), k = random(kTokens), v = random(kTokens);
    std::vector<float> mask(kTokens);
    for (size_t i = 0; i < kTokens; ++i) mask[i] = static_cast<float>(i % 3) / 2;
    const size_t each = kTokens * kHeads * kDim;
    const auto row = [&](const Values& x, size_t sample) {
        const auto begin = x.host.begin() + static_cast<std::ptrdiff_t>(sample * each);
        return std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(each));
    };
    for (const size_t count : {size_t{1}, size_t{2}}) {
        auto expected = times(map_of(q, k, kTokens), v, kTokens);
        for (size_t sample = 0; sample < kBatch; ++sample) {
            if (sample / count % 2 == 1) continue;  // a reference
            const MapShape shape{1, kTokens, kTokens, kHeads, kDim};
            const auto map = reference::probabilities(row(q, sample), row(k, sample + count), shape,
                                                      1 / std::sqrt(double{kDim}));
            const auto looked = reference::weighted_values(map, row(v, sample + count), shape);
            for (size_t at = 0; at < each; ++at) {
                float& o = expected[sample * each + at];
                o += mask[at / (kHeads * kDim)] * (looked[at] - o);
            }
        }
        const DitHooks hooks =
            inject_reference({.count = static_cast<int64_t>(count),
                              .mask = upload(stream_, mask, {kTokens}, DType::f32)},
                             hooks_by({dense()}));
        EXPECT_TRUE(
            close(to_host(stream_, hooks.attention(stream_, 0, q.device, k.device, v.device)),
                  expected, kClose))
            << count;
        const Tensor none = upload(stream_, std::vector<float>(kHeads, 0), {kHeads}, DType::f32);
        EXPECT_TRUE(
            close(to_host(stream_, hooks.perturbed(stream_, 0, q.device, k.device, v.device, none)),
                  expected, kClose))
            << count;
    }
}

// By turns tokens hear the first text, the second, and both; sample 1 its own.
TEST_F(InjectTest, EachTokenHearsItsRegionsTexts) {
    constexpr size_t kLength = 8, kAll = 2 * kLength;
    const Values q = random(kTokens), k = random(kLength), v = random(kLength);
    const auto keys = testing::random_values(kAll * kHeads * kDim, 95),
               values = testing::random_values(kAll * kHeads * kDim, 96);
    std::vector<float> bias(kTokens * kAll);
    const auto hears = [&](size_t token, size_t key) {
        return token % 3 == 2 || token % 3 == key / kLength;
    };
    for (size_t at = 0; at < bias.size(); ++at) bias[at] = hears(at / kAll, at % kAll) ? 0 : -1e4f;
    Dit::Context texts;
    for (const auto& [host, to] :
         {std::pair(&keys, &texts.keys), std::pair(&values, &texts.values)})
        to->assign(2, upload(stream_, *host, {2, kLength, kHeads, kDim}, DType::f32));
    const auto hook = inject_regions(
        {.texts = texts, .bias = upload(stream_, bias, {1, kTokens, kAll}, DType::f32)}, 1, 1);

    auto expected = times(map_of(q, k, kLength), v, kLength);
    const size_t each = kTokens * kHeads * kDim;
    for (const size_t sample : {0, 2, 3}) {
        const auto begin = q.host.begin() + static_cast<std::ptrdiff_t>(sample * each);
        const MapShape shape{1, kTokens, kAll, kHeads, kDim};
        auto map = reference::probabilities({begin, begin + static_cast<std::ptrdiff_t>(each)},
                                            keys, shape, 1 / std::sqrt(double{kDim}));
        for (size_t row = 0; row < kHeads * kTokens; ++row) {
            double sum = 0;
            for (size_t j = 0; j < kAll; ++j)
                sum += map[row * kAll + j] *= hears(row % kTokens, j) ? 1.0f : 0.0f;
            for (size_t j = 0; j < kAll; ++j)
                map[row * kAll + j] = static_cast<float>(map[row * kAll + j] / sum);
        }
        const auto own = reference::weighted_values(map, values, shape);
        std::copy(own.begin(), own.end(),
                  expected.begin() + static_cast<std::ptrdiff_t>(sample * each));
    }
    EXPECT_TRUE(
        close(to_host(stream_, hook(stream_, 1, q.device, k.device, v.device)), expected, kClose));
    const auto short_of_words = inject_regions(
        {.texts = texts,
         .bias = upload(stream_, std::vector<float>(kTokens), {1, kTokens, 1}, DType::f32)},
        1, 1);
    EXPECT_THROW(short_of_words(stream_, 1, q.device, k.device, v.device), Error);
}

TEST_F(InjectTest, WhatDoesNotFitIsRefused) {
    const Values q = random(kTokens), k = random(6), v = random(6);
    const Tensor mapping = empty(device(), {6, 6}, DType::f32),
                 own = empty(device(), {6}, DType::f32);
    const auto run = [&](const DitHooks::Attention& hook) {
        hook(stream_, 0, q.device, k.device, v.device);
    };
    EXPECT_THROW(run(inject_cross({.source = 0, .target = 4, .mapping = mapping, .own = own})),
                 Error);
    EXPECT_THROW(run(inject_cross({.source = 1, .target = 1, .mapping = mapping, .own = own})),
                 Error);
    EXPECT_THROW(run(inject_cross({.source = 0, .target = 1, .mapping = own, .own = own})), Error);
    EXPECT_THROW(run(inject_self({.pairs = {{0, 1}}, .mask = own}, everything())), Error);
    const DitHooks base = hooks_by({dense()});
    EXPECT_THROW(run(inject_reference({.count = 1, .mask = own}, base).attention), Error);
    const Tensor mask = empty(device(), {kTokens}, DType::f32);
    EXPECT_THROW(run(inject_reference({.count = 3, .mask = mask}, base).attention), Error);
}

TEST(WordMask, IsAboveTheThresholdAndGrows) {
    const std::vector<float> heat{1, 1, 1, 1,  //
                                  1, 1, 1, 1,  //
                                  1, 1, 2, 3};
    EXPECT_THAT(word_mask(heat, 3, 4, {.threshold = 0.6f, .grow = 0}),
                ::testing::ElementsAre(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1));
    EXPECT_THAT(word_mask(heat, 3, 4, {.threshold = 0.4f, .grow = 1}),
                ::testing::ElementsAre(0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1));
    // Of a clip: over all frames, and none grows into another.
    EXPECT_THAT(word_mask({1, 1, 1, 3, 2, 1}, 1, 2, {.threshold = 0.6f, .grow = 1, .frames = 3}),
                ::testing::ElementsAre(0, 0, 1, 1, 0, 0));
    EXPECT_THAT(word_mask({1, 1}, 1, 2, {}), ::testing::ElementsAre(0, 0));
    EXPECT_THROW(word_mask({1, 1}, 1, 3, {}), Error);
}

// A heat map times the mean of the dense layer's map, whole and on the host.
TEST(HeatSpread, IsThePowerOfTheMap) {
    vk::Stream stream(device());
    const Dit model(stream, Weights::open(FOVEA_SOURCE_DIR "/tests/golden/models/dit.safetensors"),
                    DType::f32);
    const auto random = [&](const Shape& shape, uint32_t seed) {
        int64_t count = 1;
        for (const int64_t extent : shape) count *= extent;
        return upload(stream, testing::random_values(static_cast<size_t>(count), seed), shape,
                      DType::f32);
    };
    const auto& config = model.config();
    const Tensor z = random({2, 8, 10, config.latent_channels}, 1);
    const auto context = model.context(stream, random({2, 8, config.text_width}, 2));
    HeatSpread spread(model, model.grid(z.shape()), 1);
    std::vector<float> heat(20, 0);
    heat[7] = 1;
    EXPECT_THROW(spread.spread(stream, heat), Error);
    std::vector<float> q, k;  // of layer 1, the dense one
    DitHooks hooks =
        spread.around({.attention = [&](vk::Stream& s, int64_t layer, const Tensor& q_of,
                                        const Tensor& k_of, const Tensor& v) {
            if (layer == 1) {
                q = to_host(s, q_of.slice(1, 1));
                k = to_host(s, k_of.slice(1, 1));
            }
            return attend(s, q_of, k_of, v, dense());
        }});
    to_host(stream, model.forward(stream, z, 0.5f, context, hooks));
    const auto heads = static_cast<size_t>(config.heads);
    const MapShape shape{1, 20, 20, heads, static_cast<size_t>(config.width / config.heads)};
    const auto map =
        reference::probabilities(q, k, shape, 1 / std::sqrt(static_cast<double>(shape.dim)));
    std::vector<float> expected = heat;
    for (int i = 0; i < 3; ++i) {
        std::vector<float> next(20, 0);
        for (size_t at = 0; at < map.size(); ++at)
            next[at / 20 % 20] += 0.75f * map[at] * expected[at % 20] / static_cast<float>(heads);
        for (size_t t = 0; t < 20; ++t) expected[t] = 0.25f * expected[t] + next[t];
    }
    EXPECT_TRUE(close(spread.spread(stream, heat, 3, 0.25f), expected, {1e-5f, 1e-4f}));
}

}  // namespace
}  // namespace fovea
