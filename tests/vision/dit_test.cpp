#include "vision/models/dit.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>

#include "backend/error.h"
#include "backend/ops/elementwise.h"
#include "backend/patterns/registry.h"
#include "tests/testing.h"

/// Clips and hooks of the diffusion transformer, with the tiny random model whose pictures
/// models_test compares with PyTorch's.
namespace fovea {
namespace {

using testing::close;
using testing::device;
using testing::Tolerance;
using Kind = DitPart::Kind;

constexpr Tolerance kDeep{2e-4f, 1e-4f};  // two layers, sums in another order

class DitTest : public ::testing::Test {
  protected:
    static constexpr int64_t kBatch = 2, kFrames = 3, kHeight = 10, kWidth = 12, kChannels = 4;
    static constexpr int64_t kRows = kHeight / 2, kColumns = kWidth / 2;
    static constexpr float kTime = 0.6f;

    DitTest()
        : stream_(device()),
          model_(stream_, Weights::open(FOVEA_SOURCE_DIR "/tests/golden/models/dit.safetensors"),
                 DType::f32) {
        const auto& config = model_.config();
        const Shape states{kBatch, 8, config.text_width};
        context_ = model_.context(stream_, random(states, 1));
    }

    Tensor random(const Shape& shape, uint32_t seed) {
        size_t count = 1;
        for (const int64_t extent : shape) count *= static_cast<size_t>(extent);
        return upload(stream_, testing::random_values(count, seed), shape, DType::f32);
    }
    Tensor clip(uint32_t seed = 2) {
        return random({kBatch, kFrames, kHeight, kWidth, kChannels}, seed);
    }
    std::vector<float> forward(const Tensor& z, const DitHooks& hooks = {}) {
        return to_host(stream_, model_.forward(stream_, z, kTime, context_, hooks));
    }
    DitHooks patterns(const char* spec, const Grid& grid) const {
        return {.attention = attention_by(std::vector<Pattern>(
                    static_cast<size_t>(model_.config().layers), parse_pattern(spec, grid)))};
    }

    vk::Stream stream_;
    Dit model_;
    Dit::Context context_;
};

TEST_F(DitTest, AClipOfOneFrameIsAPicture) {
    const Tensor z = random({kBatch, kHeight, kWidth, kChannels}, 2);
    EXPECT_EQ(forward(z.reshape({kBatch, 1, kHeight, kWidth, kChannels})), forward(z));
}

TEST_F(DitTest, FramesThatDoNotSeeEachOtherArePictures) {
    const Tensor z = clip();
    const auto found =
        forward(z, patterns("neighborhood:1x0x0", {.shape = {kFrames, kRows, kColumns}}));
    const size_t frame = kHeight * kWidth * kChannels;
    for (int64_t f = 0; f < kFrames; ++f) {
        std::vector<float> values;
        const auto all = to_host(stream_, z);
        for (int64_t b = 0; b < kBatch; ++b) {
            const auto begin = all.begin() + (b * kFrames + f) * static_cast<int64_t>(frame);
            values.insert(values.end(), begin, begin + static_cast<int64_t>(frame));
        }
        const Tensor picture =
            upload(stream_, values, {kBatch, kHeight, kWidth, kChannels}, DType::f32);
        const auto expected = forward(picture, patterns("dense", {}));
        for (int64_t b = 0; b < kBatch; ++b)
            EXPECT_TRUE(
                close(std::span(found).subspan(static_cast<size_t>(b * kFrames + f) * frame, frame),
                      std::span(expected).subspan(static_cast<size_t>(b) * frame, frame), kDeep))
                << "frame " << f << " of clip " << b;
    }
}

TEST_F(DitTest, AClipSeesAllOfItself) {
    const Tensor z = clip();
    const auto own = forward(z);
    EXPECT_EQ(own, forward(z, patterns("dense", {})));
    EXPECT_FALSE(close(
        own, forward(z, patterns("neighborhood:1x0x0", {.shape = {kFrames, kRows, kColumns}})),
        {1e-2f, 0}));
}

// Frames that are alike have queries that differ by the turn of their time alone.
TEST_F(DitTest, QueriesAndKeysTurnWithTheirFrame) {
    const auto one = to_host(stream_, random({kHeight, kWidth, kChannels}, 3));
    std::vector<float> repeated;
    for (int64_t i = 0; i < kBatch * kFrames; ++i)
        repeated.insert(repeated.end(), one.begin(), one.end());
    const Tensor z =
        upload(stream_, repeated, {kBatch, kFrames, kHeight, kWidth, kChannels}, DType::f32);
    Tensor q, k;
    DitHooks hooks = patterns("dense", {});
    forward(z, {.attention = [&](vk::Stream& stream, int64_t layer, const Tensor& q_of,
                                 const Tensor& k_of, const Tensor& v_of) {
                if (layer == 0) {
                    q = q_of;
                    k = k_of;
                }
                return hooks.attention(stream, layer, q_of, k_of, v_of);
            }});
    const auto& config = model_.config();
    const int64_t tokens = kRows * kColumns, head_dim = config.width / config.heads;
    ASSERT_EQ(q.shape(), (Shape{kBatch, kFrames * tokens, config.heads, head_dim}));
    for (const Tensor& turned : {q, k}) {
        const auto found = to_host(stream_, turned);
        auto expected = found;
        const int64_t each = tokens * config.heads * head_dim;
        for (int64_t i = 0; i < kBatch * kFrames * each; ++i) {
            const int64_t f = i / each % kFrames, d = i % head_dim;
            const int64_t first = i - f * each;  // the same element of frame 0
            if (d >= config.rope_axes[0]) {
                expected[static_cast<size_t>(i)] = found[static_cast<size_t>(first)];
                continue;
            }
            const int64_t even = first - d % 2;
            const double a = found[static_cast<size_t>(even)],
                         b = found[static_cast<size_t>(even) + 1];
            const double frequency = std::pow(
                config.rope_theta, -static_cast<double>(d / 2) / (config.rope_axes[0] / 2.0));
            const double angle = static_cast<double>(f) * frequency;
            expected[static_cast<size_t>(i)] =
                static_cast<float>(d % 2 == 0 ? a * std::cos(angle) - b * std::sin(angle)
                                              : a * std::sin(angle) + b * std::cos(angle));
        }
        EXPECT_TRUE(close(found, expected, {2e-5f, 2e-5f}));
    }
}

TEST_F(DitTest, EveryPartIsAskedForInOrder) {
    std::vector<std::pair<Kind, int64_t>> asked;
    const Tensor z = clip();
    const auto found = forward(z, {.part = [&](vk::Stream&, const DitPart& part) {
                                   asked.emplace_back(part.kind, part.layer);
                                   return part.compute();
                               }});
    EXPECT_EQ(found, forward(z));
    EXPECT_THAT(asked,
                ::testing::ElementsAre(std::pair(Kind::blocks, 0), std::pair(Kind::attention, 0),
                                       std::pair(Kind::cross, 0), std::pair(Kind::mlp, 0),
                                       std::pair(Kind::attention, 1), std::pair(Kind::cross, 1),
                                       std::pair(Kind::mlp, 1)));
}

// A cache of residuals: what was computed stands in for what is asked again.
TEST_F(DitTest, ResidualsOfOneCallServeTheNext) {
    const Tensor z = clip();
    for (const bool whole : {true, false}) {
        std::map<std::pair<Kind, int64_t>, Tensor> residuals;
        int computed = 0;
        const DitHooks hooks{.part = [&](vk::Stream& stream, const DitPart& part) {
            if ((part.kind == Kind::blocks) != whole) return part.compute();
            auto& residual = residuals[{part.kind, part.layer}];
            if (residual) return add(stream, part.x, residual);
            ++computed;
            const Tensor y = part.compute();
            residual = linear_combination(stream, {{1, y}, {-1, part.x}});
            return y;
        }};
        const auto first = forward(z, hooks);
        const int parts = computed;
        EXPECT_EQ(parts, whole ? 1 : 6);
        EXPECT_TRUE(close(forward(z, hooks), first, kDeep)) << whole;
        EXPECT_EQ(computed, parts);
        EXPECT_FALSE(close(forward(clip(9), hooks), forward(clip(9)), {1e-2f, 0})) << whole;
    }
}

TEST_F(DitTest, ModulatedIsWhatAPartBeginsWith) {
    Tensor of_blocks, of_attention;
    forward(clip(), {.part = [&](vk::Stream&, const DitPart& part) {
                if (part.kind == Kind::blocks) of_blocks = part.modulated();
                if (part.kind == Kind::attention && part.layer == 0)
                    of_attention = part.modulated();
                return part.compute();
            }});
    const auto values = to_host(stream_, of_blocks);
    EXPECT_EQ(values, to_host(stream_, of_attention));
    EXPECT_EQ(of_blocks.shape(),
              (Shape{kBatch, kFrames * kRows * kColumns, model_.config().width}));
}

TEST_F(DitTest, OtherShapesAreRefused) {
    for (const Shape& shape : {Shape{kBatch, kHeight, kWidth, 5}, Shape{kBatch, 9, 12, kChannels},
                               Shape{kBatch, 3, 9, 12, kChannels}, Shape{kBatch, 12, kChannels}})
        EXPECT_THROW(forward(random(shape, 4)), Error) << to_string(shape);
    EXPECT_THROW(forward(random({1, kHeight, kWidth, kChannels}, 4)), Error);
    EXPECT_THROW(forward(clip(), {.attention = attention_by({dense()})}), Error);
}

}  // namespace
}  // namespace fovea
