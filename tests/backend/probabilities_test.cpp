#include "backend/ops/probabilities.h"

#include <gmock/gmock.h>

#include "backend/error.h"
#include "backend/ops/attention.h"
#include "backend/reference/probabilities.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;
using testing::input;
using testing::tolerance;

const reference::MapShape kCases[] = {{1, 1, 1, 1, 8},     {2, 65, 32, 4, 64}, {3, 7, 5, 2, 24},
                                      {1, 300, 32, 2, 16}, {1, 3, 512, 1, 8},  {2, 9, 1, 3, 40}};

TEST(Probabilities, AgreeWithReference) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage)
        for (const auto& s : kCases) {
            const auto n = [](size_t count) { return static_cast<int64_t>(count); };
            const int64_t batch = n(s.batch), heads = n(s.heads), dim = n(s.dim);
            SCOPED_TRACE(
                fmt::format("{} {} {}×{} {}", name_of(dtype), s.batch, s.queries, s.keys, s.dim));
            const auto q = input(stream, {batch, n(s.queries), heads, dim}, 1, dtype, 2);
            const auto k = input(stream, {batch, n(s.keys), heads, dim}, 2, dtype, 2);
            const auto v = input(stream, {batch, n(s.keys), heads, dim}, 3, dtype);
            const Shape map_shape{batch, heads, n(s.queries), n(s.keys)};
            testing::poison(stream, map_shape, DType::f32);
            const Tensor map = probabilities(stream, q.device, k.device, 0.3f);
            EXPECT_EQ(map.shape(), map_shape);
            const auto expected = reference::probabilities(q.host, k.host, s, double{0.3f});
            const auto found = to_host(stream, map);
            EXPECT_TRUE(close(found, expected, tolerance(DType::f32)));
            testing::poison(stream, q.device.shape(), dtype);
            EXPECT_TRUE(close(to_host(stream, weighted_values(stream, map, v.device)),
                              reference::weighted_values(found, v.host, s), tolerance(dtype)));
        }
}

// What attention() makes of the same tensors, as views of products' columns.
TEST(Probabilities, TimesValuesAreAttention) {
    vk::Stream stream(device());
    const int64_t batch = 2, queries = 33, keys = 32, heads = 2, d = 16, width = heads * d;
    const auto qs = input(stream, {batch, queries, 2 * width}, 1, DType::f32);
    const auto kv = input(stream, {batch, keys, 2 * width}, 2, DType::f32);
    const auto part = [&](const Tensor& x, int64_t i) {
        return x.columns(i * width, width).reshape({batch, x.dim(1), heads, d});
    };
    const Tensor q = part(qs.device, 1), k = part(kv.device, 0), v = part(kv.device, 1);
    const Tensor expected =
        attention(stream, q, k, v, dense(), {.layout = HeadLayout::tokens_first});
    const Tensor found = weighted_values(stream, probabilities(stream, q, k), v);
    EXPECT_EQ(found.shape(), expected.shape());
    EXPECT_TRUE(close(to_host(stream, found), to_host(stream, expected), tolerance(DType::f32)));
}

// Logits of ±10⁴ neither overflow nor lose the row's sum.
TEST(Probabilities, LargeLogits) {
    vk::Stream stream(device());
    const std::vector<float> q(8, 100), k{[] {
        std::vector<float> values(24, 100);
        std::fill(values.begin() + 8, values.begin() + 16, -100.0f);
        return values;
    }()};
    const Tensor map = probabilities(stream, upload(stream, q, {1, 1, 1, 8}, DType::f32),
                                     upload(stream, k, {1, 3, 1, 8}, DType::f32), 1);
    EXPECT_THAT(to_host(stream, map), ::testing::ElementsAre(0.5f, 0.0f, 0.5f));
}

TEST(Probabilities, BadShapesAreErrors) {
    vk::Stream stream(device());
    const Tensor q = empty(device(), {1, 4, 2, 8}, DType::f32);
    const auto error = [&](const auto& work) -> std::string {
        try {
            work();
        } catch (const Error& error) {
            return error.what();
        }
        return {};
    };
    EXPECT_THAT(error([&] {
                    probabilities(stream, q, empty(device(), {1, 4, 1, 8}, DType::f32));
                }),
                ::testing::HasSubstr("(1, 4, 1, 8)"));
    EXPECT_THAT(error([&] {
                    probabilities(stream, q, empty(device(), {1, 513, 2, 8}, DType::f32));
                }),
                ::testing::HasSubstr("at most 512"));
    EXPECT_THAT(error([&] {
                    weighted_values(stream, empty(device(), {1, 2, 4, 3}, DType::f32),
                                    empty(device(), {1, 4, 2, 8}, DType::f32));
                }),
                ::testing::HasSubstr("(1, 2, 4, 3)"));
}

}  // namespace
}  // namespace fovea
