#include "vision/taps/painta.h"

#include <gmock/gmock.h>

#include <cmath>

#include "backend/error.h"
#include "tests/testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;
using ::testing::Each;
using ::testing::SizeIs;

TEST(PaintaFactors, AreSharesAboveTheMedian) {
    // One column alone: no blur across it but along it.
    const float w = std::exp(-2.0f);
    const auto found = painta_factors({0, 0, 0, 1, 0}, 5, 1);
    const float side = w / (1 + 2 * w), middle = 1 / (1 + 2 * w), last = w / (1 + w);
    // Sorted 0 0 side middle last or so: the median is `side`.
    const float median = side;
    EXPECT_TRUE(close(found, {{0, 0, 0, (middle - median) / middle, (last - median) / middle}},
                      {1e-6f, 0}));
    EXPECT_THAT(painta_factors(std::vector<float>(12, 0.25f), 3, 4), Each(0.0f));
    EXPECT_THAT(painta_factors(std::vector<float>(12, 0.0f), 3, 4), Each(0.0f));
    EXPECT_THROW(painta_factors({1, 2, 3}, 2, 2), Error);
}

/// The tiny random model, two pictures and both their branches.
class PaintaTest : public ::testing::Test {
  protected:
    static constexpr int64_t kRows = 5, kColumns = 6, kTokens = 30, kLength = 8;

    PaintaTest()
        : stream_(device()),
          model_(stream_, Weights::open(FOVEA_SOURCE_DIR "/tests/golden/models/dit.safetensors"),
                 DType::f32),
          context_(model_.context(stream_, random({4, kLength, model_.config().text_width}))),
          z_(random({4, 2 * kRows, 2 * kColumns, 4})) {
        Painta::Sample sample{.hole = std::vector<uint8_t>(kTokens, 0), .words = {1, 3}};
        for (const size_t token : {7u, 8u, 13u, 14u}) sample.hole[token] = 1;
        samples_ = {sample, sample};
        samples_[1].hole[20] = 1;
        samples_[1].words = {2};
    }
    Tensor random(const Shape& shape) {
        int64_t count = 1;
        for (const int64_t extent : shape) count *= extent;
        return upload(stream_, testing::random_values(static_cast<size_t>(count), ++seed_), shape,
                      DType::f32);
    }
    Painta painta() { return {stream_, model_, model_.grid(z_.shape()), samples_}; }
    std::vector<float> forward(const DitHooks& hooks) {
        return to_host(stream_, model_.forward(stream_, z_, 0.6f, context_, hooks));
    }

    uint32_t seed_ = 0;
    vk::Stream stream_;
    Dit model_;
    Dit::Context context_;
    Tensor z_;
    std::vector<Painta::Sample> samples_;
};

TEST_F(PaintaTest, TheFirstPassAndLateOnesAreTheModels) {
    Painta painta = this->painta();
    const auto own = forward({});
    EXPECT_EQ(forward(painta.hooks(1.0f)), own);
    EXPECT_NE(forward(painta.hooks(0.9f)), own);
    EXPECT_THAT(painta.factors(0), SizeIs(kTokens));
    EXPECT_EQ(forward(painta.hooks(0.5f)), own);
    EXPECT_THAT(painta.factors(0), SizeIs(0));
}

TEST_F(PaintaTest, LogitsOfTheHoleAtKnownKeysAreMultiplied) {
    Painta painta = this->painta();
    forward(painta.hooks(1.0f));
    const DitHooks hooks = painta.hooks(0.9f);
    ASSERT_NE(painta.factors(0), painta.factors(1));
    const auto& config = model_.config();
    const int64_t heads = config.heads, dim = config.width / heads;
    const Tensor q = random({4, kTokens, heads, dim}), k = random({4, kTokens, heads, dim}),
                 v = random({4, kTokens, heads, dim});
    const auto found =
        to_host(stream_, hooks.attention(stream_, config.global_layers.at(0), q, k, v));
    const auto qs = to_host(stream_, q), ks = to_host(stream_, k), vs = to_host(stream_, v);
    std::vector<float> expected(found.size(), 0);
    for (size_t b = 0; b < 4; ++b)
        for (size_t h = 0; h < static_cast<size_t>(heads); ++h)
            for (size_t i = 0; i < kTokens; ++i) {
                const auto d = static_cast<size_t>(dim);
                const auto at = [&](size_t token) {
                    return ((b * kTokens + token) * static_cast<size_t>(heads) + h) * d;
                };
                const auto& hole = samples_[b % 2].hole;
                std::vector<double> weights(kTokens);
                double sum = 0;
                for (size_t j = 0; j < kTokens; ++j) {
                    double logit = 0;
                    for (size_t e = 0; e < d; ++e) logit += qs[at(i) + e] * ks[at(j) + e];
                    logit /= std::sqrt(static_cast<double>(dim));
                    if (hole[i] && !hole[j]) logit *= painta.factors(b % 2)[j];
                    sum += weights[j] = std::exp(logit);
                }
                for (size_t j = 0; j < kTokens; ++j)
                    for (size_t e = 0; e < d; ++e)
                        expected[at(i) + e] += static_cast<float>(weights[j] / sum * vs[at(j) + e]);
            }
    EXPECT_TRUE(close(found, expected, {2e-5f, 2e-5f}));
}

}  // namespace
}  // namespace fovea
