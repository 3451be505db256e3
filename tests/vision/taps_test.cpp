#include "vision/taps/taps.h"

#include <gmock/gmock.h>

#include "backend/error.h"
#include "backend/reference/probabilities.h"
#include "tests/testing.h"

/// Maps read from the tiny random model against plain ones of the same queries and keys.
namespace fovea {
namespace {

using testing::close;
using testing::device;

constexpr testing::Tolerance kClose{2e-5f, 2e-5f};

class TapsTest : public ::testing::Test {
  protected:
    static constexpr int64_t kBatch = 3, kHeight = 10, kWidth = 12, kChannels = 4, kLength = 8;
    static constexpr int64_t kTokens = kHeight / 2 * kWidth / 2;

    TapsTest()
        : stream_(device()),
          model_(stream_, Weights::open(FOVEA_SOURCE_DIR "/tests/golden/models/dit.safetensors"),
                 DType::f32),
          context_(model_.context(stream_, random({kBatch, kLength, model_.config().text_width}))),
          z_(random({kBatch, kHeight, kWidth, kChannels})),
          place_{.grid = model_.grid(z_.shape()), .first = 1, .samples = 2, .length = kLength} {}

    Tensor random(const Shape& shape) {
        int64_t count = 1;
        for (const int64_t extent : shape) count *= extent;
        return upload(stream_, testing::random_values(static_cast<size_t>(count), ++seed_), shape,
                      DType::f32);
    }
    std::vector<float> forward(const DitHooks& hooks, float t = 0.6f) {
        return to_host(stream_, model_.forward(stream_, z_, t, context_, hooks));
    }
    /// Queries and keys of a layer on the host, from a hook.
    struct Heads {
        std::vector<float> q, k;
        int64_t queries, keys;
    };
    DitHooks::Attention keep(std::vector<Heads>& layers, DitHooks::Attention inner) {
        return [this, &layers, inner](vk::Stream& stream, int64_t layer, const Tensor& q,
                                      const Tensor& k, const Tensor& v) {
            layers.push_back({to_host(stream, q.slice(place_.first, place_.samples)),
                              to_host(stream, k.slice(place_.first, place_.samples)), q.dim(1),
                              k.dim(1)});
            return inner(stream, layer, q, k, v);
        };
    }
    std::vector<float> map_of(const Heads& heads) const {
        const auto& config = model_.config();
        const auto d = static_cast<size_t>(config.width / config.heads);
        return reference::probabilities(heads.q, heads.k,
                                        {.batch = static_cast<size_t>(place_.samples),
                                         .queries = static_cast<size_t>(heads.queries),
                                         .keys = static_cast<size_t>(heads.keys),
                                         .heads = static_cast<size_t>(config.heads),
                                         .dim = d},
                                        1 / std::sqrt(static_cast<double>(d)));
    }

    uint32_t seed_ = 0;
    vk::Stream stream_;
    Dit model_;
    Dit::Context context_;
    Tensor z_;
    TapPlace place_;
};

TEST_F(TapsTest, ReadingChangesNothing) {
    Taps taps(model_, place_, {.received = true});
    EXPECT_EQ(forward(taps.around({}, 0)), forward({}));
}

TEST_F(TapsTest, WordMapsAreTheShareOfEachWord) {
    std::vector<Heads> layers;
    Taps taps(model_, place_, {.by_layer = true, .by_head = true});
    const DitHooks inner{
        .cross = keep(layers, [](vk::Stream& stream, int64_t, const Tensor& q, const Tensor& k,
                                 const Tensor& v) { return attend(stream, q, k, v, dense()); })};
    forward(taps.around(inner, 0));
    const auto maps = taps.words(stream_);
    ASSERT_EQ(maps.size(), layers.size());
    for (size_t i = 0; i < maps.size(); ++i) {
        EXPECT_EQ(maps[i].layer, static_cast<int64_t>(i));
        EXPECT_EQ(maps[i].step, -1);
        EXPECT_EQ(maps[i].values.shape(), (Shape{2, model_.config().heads, kTokens, kLength}));
        EXPECT_TRUE(close(to_host(stream_, maps[i].values), map_of(layers[i]), kClose));
    }
}

TEST_F(TapsTest, ReceivedAreTheSumsOfColumns) {
    std::vector<Heads> layers;
    Taps taps(model_, place_,
              {.words = false, .received = true, .by_layer = true, .by_head = true});
    const auto patterns = model_.patterns(place_.grid);
    forward(taps.around({.attention = keep(layers, attention_by(patterns))}, 0));
    const auto maps = taps.received(stream_);
    ASSERT_EQ(maps.size(), layers.size());
    for (size_t layer = 0; layer < maps.size(); ++layer) {
        // The whole map, normed anew where the layer's pattern hides keys.
        const auto map = map_of(layers[layer]);
        const auto n = static_cast<size_t>(kTokens);
        std::vector<float> expected(map.size() / n);
        for (size_t row = 0; row < map.size() / n; ++row) {
            double sum = 0;
            const auto seen = [&](size_t j) {
                return patterns[layer].keeps(static_cast<uint32_t>(row % n),
                                             static_cast<uint32_t>(j));
            };
            for (size_t j = 0; j < n; ++j) sum += seen(j) ? double{map[row * n + j]} : 0;
            for (size_t j = 0; j < n; ++j)
                if (seen(j))
                    expected[row / n * n + j] += static_cast<float>(map[row * n + j] / sum);
        }
        EXPECT_EQ(maps[layer].values.shape(), (Shape{2, model_.config().heads, kTokens}));
        EXPECT_TRUE(close(to_host(stream_, maps[layer].values), expected, {1e-4f, 1e-4f}));
    }
}

TEST_F(TapsTest, WhatIsNotKeptApartIsTheMean) {
    Taps apart(model_, {place_.grid, 1, 2, 2, kLength},
               {.received = true, .by_layer = true, .by_head = true, .by_step = true});
    Taps pooled(model_, {place_.grid, 1, 2, 2, kLength}, {.received = true});
    for (const int step : {0, 1}) {
        const float t = step == 0 ? 0.9f : 0.3f;
        forward(apart.around({}, step), t);
        forward(pooled.around({}, step), t);
    }
    const auto check = [&](const std::vector<Taps::Map>& all, const std::vector<Taps::Map>& one) {
        ASSERT_EQ(one.size(), 1u);
        ASSERT_EQ(all.size(), 2 * static_cast<size_t>(model_.config().layers));
        EXPECT_EQ(all[1].step, 0);
        EXPECT_EQ(all[1].layer, 1);
        const auto found = to_host(stream_, one[0].values);
        const auto heads = static_cast<size_t>(model_.config().heads);
        const size_t samples = 2, each = found.size() / samples;
        std::vector<float> expected(found.size());
        for (const auto& map : all) {
            const auto values = to_host(stream_, map.values);
            for (size_t i = 0; i < values.size(); ++i)
                expected[i / each / heads * each + i % each] +=
                    values[i] / static_cast<float>(all.size() * heads);
        }
        EXPECT_TRUE(close(found, expected, kClose));
    };
    check(apart.words(stream_), pooled.words(stream_));
    check(apart.received(stream_), pooled.received(stream_));
}

TEST_F(TapsTest, OnlyTheLayersAskedFor) {
    Taps taps(model_, place_, {.layers = {1}, .by_layer = true});
    forward(taps.around({}, 0));
    const auto maps = taps.words(stream_);
    ASSERT_EQ(maps.size(), 1u);
    EXPECT_EQ(maps[0].layer, 1);
}

TEST_F(TapsTest, RefusesWhatIsAboveTheBudget) {
    const auto error = [&](const TapOptions& options) -> std::string {
        try {
            Taps(model_, {place_.grid, 0, 1, 100, kLength}, options);
        } catch (const Error& error) {
            return error.what();
        }
        return {};
    };
    // 30 tokens × 8 words × 4 bytes × 2 heads × 2 layers × 100 steps = 375 KiB
    const TapOptions all{.by_layer = true, .by_head = true, .by_step = true, .budget = 375 << 10};
    EXPECT_EQ(error(all), "");
    TapOptions less = all;
    less.budget -= 1;
    EXPECT_THAT(error(less), ::testing::HasSubstr("200 maps of 1.9 KiB"));
    EXPECT_THAT(error({.layers = {2}}),
                ::testing::HasSubstr("layer 2 found, the model has 0 to 1"));
}

}  // namespace
}  // namespace fovea
