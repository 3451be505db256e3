#include "backend/ops/mix.h"

#include "backend/error.h"
#include "backend/ops/permute.h"
#include "backend/reference/mix.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using reference::MixShape;
using testing::close;
using testing::device;

int64_t size(size_t n) {
    return static_cast<int64_t>(n);
}

TEST(Mix, DepthwiseAgreesWithReference) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage)
        for (const MixShape& s :
             {MixShape{2, 5, 7, 1, 12, 3}, {1, 9, 4, 1, 8, 17}, {1, 1, 6, 1, 4, 5}}) {
            SCOPED_TRACE(
                fmt::format("{} {}×{} kernel {}", name_of(dtype), s.rows, s.columns, s.kernel));
            const Shape shape{size(s.batch), size(s.rows), size(s.columns), size(s.c)};
            const float scale = 1 / static_cast<float>(s.kernel);
            const auto x = testing::input(stream, shape, 1, dtype),
                       w = testing::input(stream, {size(s.kernel), size(s.kernel), size(s.c)}, 2,
                                          dtype, scale),
                       bias = testing::input(stream, {size(s.c)}, 3, dtype),
                       residual = testing::input(stream, shape, 4, dtype);
            testing::poison(stream, shape, dtype);
            EXPECT_TRUE(close(to_host(stream, depthwise_conv2d(stream, x.device, w.device)),
                              reference::depthwise_conv2d(x.host, w.host, s),
                              testing::tolerance(dtype)));
            EXPECT_TRUE(close(to_host(stream, depthwise_conv2d(stream, x.device, w.device,
                                                               {.bias = bias.device,
                                                                .activation = Activation::gelu,
                                                                .residual = residual.device})),
                              reference::depthwise_conv2d(x.host, w.host, s, bias.host,
                                                          Activation::gelu, residual.host),
                              testing::tolerance(dtype)));
        }
}

// 0 times an infinity would be NaN: what lies beyond the border is not read, nor are other columns.
TEST(Mix, DepthwiseReadsColumnsAndNoBorder) {
    vk::Stream stream(device());
    std::vector<float> wide(3 * 4 * 8, INFINITY), narrow;
    for (size_t i = 0; i < 12; ++i)
        for (size_t c = 0; c < 4; ++c)
            narrow.push_back(wide[i * 8 + 4 + c] = static_cast<float>(i));
    std::vector<float> w(25 * 4, 0.0f);
    w[0] = w[12 * 4] = w[24 * 4 + 3] = 1;
    const Tensor x = upload(stream, wide, {1, 3, 4, 8}, DType::f32).columns(4, 4);
    EXPECT_EQ(
        to_host(stream, depthwise_conv2d(stream, x, upload(stream, w, {5, 5, 4}, DType::f32))),
        reference::depthwise_conv2d(narrow, w, {1, 3, 4, 1, 4, 5}));
}

TEST(Mix, LocalWeightsAndSumsAgreeWithReference) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage)
        for (const MixShape& s : {MixShape{2, 5, 7, 2, 8, 3}, {1, 7, 9, 3, 4, 7}}) {
            const Shape grid{size(s.batch), size(s.rows), size(s.columns), size(s.heads)};
            const auto with = [&](int64_t last) {
                Shape shape = grid;
                shape.push_back(last);
                return shape;
            };
            const int64_t taps = size(s.kernel * s.kernel), side = 2 * size(s.kernel) - 1;
            // Logits are the first columns of a wider tensor.
            const auto wide = testing::input(stream, with(taps + 3), 1, dtype),
                       relative =
                           testing::input(stream, {size(s.heads), side, side}, 2, DType::f32),
                       v = testing::input(stream, with(size(s.c)), 3, dtype);
            const auto bias = testing::input(stream, {taps}, 4, DType::f32);
            const Tensor logits = wide.device.columns(0, taps);
            const auto expected = reference::local_weights(to_host(stream, compact(stream, logits)),
                                                           relative.host, bias.host, s);
            const Tensor weights = local_weights(stream, logits, relative.device, bias.device);
            EXPECT_TRUE(close(to_host(stream, weights), expected, testing::tolerance(dtype)));
            EXPECT_TRUE(close(to_host(stream, local_mix(stream, v.device, weights)),
                              reference::local_mix(v.host, to_host(stream, weights), s),
                              testing::tolerance(dtype)));
        }
}

TEST(Mix, WeightedSums) {
    vk::Stream stream(device());
    const Shape shape{2, 3, 5, 8};
    for (const DType dtype : testing::kStorage)
        for (size_t n = 2; n <= 4; ++n) {
            Shape gate_shape = shape;
            gate_shape.back() = size(n);
            const auto gates = testing::input(stream, gate_shape, 9, dtype);
            std::vector<testing::Input> inputs;
            std::vector<Tensor> contexts;
            for (size_t l = 0; l < n; ++l) {
                inputs.push_back(testing::input(stream, l + 1 < n ? shape : Shape{2, 8},
                                                static_cast<uint32_t>(l), dtype));
                contexts.push_back(inputs.back().device);
            }
            std::vector<float> expected;
            for (size_t row = 0; row < 30; ++row)
                for (size_t c = 0; c < 8; ++c) {
                    float sum = 0;
                    for (size_t l = 0; l < n; ++l)
                        sum += gates.host[row * n + l] *
                               inputs[l].host[(l + 1 < n ? row : row / 15) * 8 + c];
                    expected.push_back(sum);
                }
            EXPECT_TRUE(close(to_host(stream, weighted_sum(stream, contexts, gates.device)),
                              expected, testing::tolerance(dtype)));
        }
}

TEST(Mix, RefusesWhatDoesNotFit) {
    vk::Stream stream(device());
    const auto tensor = [](Shape shape) { return empty(device(), std::move(shape), DType::f32); };
    const Tensor x = tensor({1, 4, 4, 8});
    EXPECT_THROW(depthwise_conv2d(stream, x, tensor({4, 4, 8})), Error);
    EXPECT_THROW(depthwise_conv2d(stream, x, tensor({3, 3, 4})), Error);
    EXPECT_THROW(depthwise_conv2d(stream, tensor({1, 4, 4, 6}), tensor({3, 3, 6})), Error);
    const Tensor logits = tensor({1, 4, 4, 2, 25});
    EXPECT_THROW(local_weights(stream, logits, tensor({2, 9, 9}), tensor({25})),
                 Error);  // a window of 5 in 4
    EXPECT_THROW(local_weights(stream, logits, tensor({3, 5, 5}), tensor({9})), Error);
    EXPECT_THROW(local_mix(stream, tensor({1, 4, 4, 2, 8}), tensor({1, 4, 4, 2, 8})), Error);
    EXPECT_THROW(weighted_sum(stream, std::vector{x}, tensor({1, 4, 4, 2})), Error);
}

}  // namespace
}  // namespace fovea
