#include "vision/models/segmenter.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "backend/error.h"
#include "backend/ops/permute.h"
#include "tests/testing.h"

/// A tiny model with random weights against PyTorch's outputs (training/make_segment_golden.py).
namespace fovea {
namespace {

using testing::close;
using testing::device;
using ::testing::HasSubstr;
using testing::Tolerance;

class SegmenterTest : public ::testing::TestWithParam<DType> {
  protected:
    std::vector<float> values(const std::string& name) const {
        return weights_.floats("golden." + name, weights_.info("golden." + name).shape);
    }
    Tensor tensor(const std::string& name) {
        return upload(stream_, values(name), weights_.info("golden." + name).shape, GetParam());
    }
    /// Several layers deep: the ops' own tolerances add up.
    void expect(const Tensor& found, const std::string& name) {
        const Tolerance tolerance =
            GetParam() == DType::f16 ? Tolerance{4e-2f, 1e-2f} : Tolerance{5e-5f, 5e-5f};
        EXPECT_TRUE(close(to_host(stream_, found), values(name), tolerance)) << name;
    }
    void expect_answers(const SegmentAnswers& found, const std::string& name) {
        expect(found.logits, name + ".logits");
        expect(found.scores, name + ".scores");
    }
    SegmentFeatures encode(std::vector<Tensor>* blocks = nullptr) {
        return model_.encode(stream_, permute(stream_, tensor("picture"), {0, 2, 3, 1}), blocks);
    }
    /// Of tensor (count, masks, h, w), one mask each.
    Tensor mask(const Tensor& logits, int64_t k) const { return logits.index(0).slice(k, 1); }

    vk::Stream stream_{device()};
    Weights weights_ = Weights::open(FOVEA_SOURCE_DIR "/tests/golden/models/segment.safetensors");
    Segmenter model_{stream_, weights_, GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Precision, SegmenterTest, ::testing::Values(DType::f32, DType::f16),
                         [](const auto& info) { return name_of(info.param); });

constexpr SegmentPoint kPoint{.x = 0.3f, .y = 0.6f};

TEST_P(SegmenterTest, EncoderMatchesPyTorch) {
    std::vector<Tensor> blocks;
    const SegmentFeatures found = encode(&blocks);
    EXPECT_EQ(found.rows, 8);
    EXPECT_EQ(found.columns, 8);
    ASSERT_EQ(blocks.size(), 2u);
    for (size_t i = 0; i < blocks.size(); ++i) expect(blocks[i], "block." + std::to_string(i));
    expect(found.tokens, "features");
    expect(found.skip1, "skip1");
    expect(found.skip2, "skip2");
}

TEST_P(SegmenterTest, AnswersMatchPyTorch) {
    const SegmentFeatures features = encode();
    expect_answers(model_.answer(stream_, features, {.points = {kPoint}}), "point");
    expect_answers(
        model_.answer(stream_, features,
                      {.points = {kPoint, {.x = 0.8f, .y = 0.1f, .kind = SegmentPoint::negative}},
                       .earlier = mask(tensor("point.logits"), 0)}),
        "correction");
    expect_answers(
        model_.answer(stream_, features,
                      {.points = {{.x = 0.1f, .y = 0.2f, .kind = SegmentPoint::corner_first},
                                  {.x = 0.7f, .y = 0.9f, .kind = SegmentPoint::corner_last}}}),
        "box");
    expect_answers(model_.answer(stream_, features, {.text = tensor("text.vector")}), "text");
}

TEST_P(SegmenterTest, MemoryMatchesPyTorch) {
    const SegmentFeatures features = encode();
    const Tensor logits = tensor("point.logits");
    const int64_t tokens = features.tokens.dim(1), width = features.tokens.dim(2);
    // PyTorch's second frame has the first one's features in reversed order.
    SegmentFeatures other = features;
    auto turned = values("features");
    for (int64_t i = 0; i < tokens / 2; ++i)
        std::swap_ranges(turned.begin() + i * width, turned.begin() + (i + 1) * width,
                         turned.begin() + (tokens - 1 - i) * width);
    other.tokens = upload(stream_, turned, {1, tokens, width}, GetParam());
    const std::vector<Tensor> memory{
        model_.remember(stream_, features, mask(logits, 0), Segmenter::Frame::asked),
        model_.remember(stream_, other, mask(logits, 1), Segmenter::Frame::other)};
    const auto expected = values("memory");
    for (size_t i = 0; i < memory.size(); ++i) {
        const auto each = static_cast<size_t>(tokens * width);
        EXPECT_TRUE(
            close(to_host(stream_, memory[i]), std::span(expected).subspan(i * each, each),
                  GetParam() == DType::f16 ? Tolerance{4e-2f, 1e-2f} : Tolerance{5e-5f, 5e-5f}));
    }
    const SegmentFeatures recalled = model_.recall(stream_, features, memory);
    expect(recalled.tokens, "recalled");
    expect_answers(model_.answer(stream_, recalled, {}), "video");
}

TEST_P(SegmenterTest, PromptsAreAnsweredTogetherAsAlone) {
    const SegmentFeatures features = encode();
    const SegmentPoint other{.x = 0.9f, .y = 0.2f, .kind = SegmentPoint::negative};
    const auto both = model_.answer(stream_, features, {.count = 2, .points = {kPoint, other}});
    const Tolerance tolerance = testing::tolerance_of_batches(GetParam());
    const auto check = [&](const SegmentAnswers& alone, int64_t i) {
        EXPECT_TRUE(close(to_host(stream_, alone.logits), to_host(stream_, both.logits.slice(i, 1)),
                          tolerance));
        EXPECT_TRUE(close(to_host(stream_, alone.scores), to_host(stream_, both.scores.slice(i, 1)),
                          tolerance));
    };
    check(model_.answer(stream_, features, {.points = {kPoint}}), 0);
    check(model_.answer(stream_, features, {.points = {other}}), 1);
}

TEST_P(SegmenterTest, BadInputsSayWhatIsExpected) {
    const auto error = [&](const auto& call) -> std::string {
        try {
            call();
        } catch (const Error& e) {
            return e.what();
        }
        return {};
    };
    EXPECT_THAT(error([&] {
                    model_.encode(stream_, empty(device(), {1, 60, 64, 3}, GetParam()));
                }),
                HasSubstr("multiples of 8, found (1, 60, 64, 3)"));
    const SegmentFeatures features = encode();
    EXPECT_THAT(
        error([&] {
            model_.answer(stream_, features, {.count = 2, .points = {kPoint, kPoint, kPoint}});
        }),
        HasSubstr("3 points for 2 prompts"));
    EXPECT_THAT(
        error([&] {
            model_.answer(stream_, features, {.earlier = empty(device(), {1, 30, 32}, GetParam())});
        }),
        HasSubstr("earlier masks are (1, 30, 32), expected (1, 32, 32)"));
    EXPECT_THAT(error([&] { model_.answer(stream_, features, {.text = tensor("point.scores")}); }),
                HasSubstr("text is (1, 5), expected (1, 24)"));
}

}  // namespace
}  // namespace fovea
