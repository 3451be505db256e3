#include "backend/ops/elementwise.h"

#include "backend/error.h"
#include "backend/reference/activation.h"
#include "backend/reference/elementwise.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;
using testing::input;
using testing::tolerance;
using testing::Tolerance;

const Shape kShapes[] = {{1}, {3, 5, 7}, {2, 1, 257}, {6, 64}};

template <typename Op>
std::vector<float> fresh(vk::Stream& stream, const Shape& shape, DType dtype, Op op) {
    testing::poison(stream, shape, dtype);
    const Tensor y = op();
    EXPECT_EQ(y.shape(), shape);
    EXPECT_EQ(y.dtype(), dtype);
    return to_host(stream, y);
}

std::vector<float> expected_of(std::span<const float> x, Activation activation) {
    return reference::map(
        x, [&](float v) { return static_cast<float>(reference::activate(v, activation)); });
}

TEST(Elementwise, AddAndMultiplyRepeatTheEndOfTheShape) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage)
        for (const Shape& shape : kShapes)
            for (size_t drop = 0; drop < shape.size(); ++drop) {
                const Shape end(shape.begin() + static_cast<int64_t>(drop), shape.end());
                SCOPED_TRACE(
                    fmt::format("{} {} {}", name_of(dtype), to_string(shape), to_string(end)));
                const auto a = input(stream, shape, 1, dtype), b = input(stream, end, 2, dtype);
                EXPECT_TRUE(close(
                    fresh(stream, shape, dtype, [&] { return add(stream, a.device, b.device); }),
                    reference::add(a.host, b.host), tolerance(dtype)));
                EXPECT_TRUE(close(fresh(stream, shape, dtype,
                                        [&] { return multiply(stream, a.device, b.device); }),
                                  reference::multiply(a.host, b.host), tolerance(dtype)));
            }
}

TEST(Elementwise, LinearCombinationOfOneToFourTerms) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage)
        for (const Shape& shape : kShapes) {
            std::vector<Term> terms;
            std::vector<float> expected(testing::numel(shape), 0);
            for (uint32_t i = 0; i < 4; ++i) {
                const auto x = input(stream, shape, i, dtype);
                const float coefficient = 0.75f - static_cast<float>(i);
                terms.push_back({coefficient, x.device});
                for (size_t j = 0; j < expected.size(); ++j) expected[j] += coefficient * x.host[j];
                EXPECT_TRUE(close(
                    fresh(stream, shape, dtype, [&] { return linear_combination(stream, terms); }),
                    expected, {4 * tolerance(dtype).absolute, 2e-3f}));
            }
        }
}

TEST(Elementwise, Activations) {
    vk::Stream stream(device());
    using reference::map;
    for (const DType dtype : testing::kStorage) {
        const Shape shape{3, 41};
        const auto x = input(stream, shape, 1, dtype, 4);
        const auto found = [&](Activation activation) {
            return fresh(stream, shape, dtype,
                         [&] { return activate(stream, x.device, activation); });
        };
        EXPECT_EQ(found(Activation::none), x.host);
        EXPECT_EQ(found(Activation::relu), expected_of(x.host, Activation::relu));
        EXPECT_TRUE(close(found(Activation::gelu), expected_of(x.host, Activation::gelu),
                          tolerance(dtype)));
        for (const Activation activation :
             {Activation::silu, Activation::sigmoid, Activation::elu_plus_one, Activation::exp})
            EXPECT_TRUE(close(found(activation), expected_of(x.host, activation), tolerance(dtype)))
                << static_cast<int>(activation);
        EXPECT_TRUE(close(
            fresh(stream, shape, dtype, [&] { return soft_clamp(stream, x.device, 3); }),
            map(x.host, [](float v) { return reference::soft_clamp(v, 3); }), tolerance(dtype)));
    }
}

TEST(Elementwise, ExtremesStayFinite) {
    vk::Stream stream(device());
    const std::vector<float> values{-65504, -1000, -100, -20, 0, 20, 100, 1000, 65504};
    const Shape shape{9};
    const Tensor x = upload(stream, values, shape, DType::f32);
    const Tolerance loose{1e-5f, 1e-6f};
    EXPECT_TRUE(close(to_host(stream, activate(stream, x, Activation::gelu)),
                      expected_of(values, Activation::gelu), loose));
    for (const Activation activation :
         {Activation::silu, Activation::sigmoid, Activation::elu_plus_one})
        EXPECT_TRUE(close(to_host(stream, activate(stream, x, activation)),
                          expected_of(values, activation), loose));
    EXPECT_TRUE(close(to_host(stream, soft_clamp(stream, x, 3)),
                      reference::map(values, [](float v) { return reference::soft_clamp(v, 3); }),
                      loose));
}

TEST(Elementwise, Affine) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage)
        for (const Shape& shape : kShapes) {
            const auto x = input(stream, shape, 1, dtype);
            const auto scale = input(stream, {shape.back()}, 2, dtype);
            const auto shift = input(stream, {shape.back()}, 3, dtype);
            EXPECT_TRUE(
                close(fresh(stream, shape, dtype,
                            [&] { return affine(stream, x.device, scale.device, shift.device); }),
                      reference::add(reference::multiply(x.host, scale.host), shift.host),
                      tolerance(dtype)));
        }
}

TEST(Elementwise, ConvertRoundsToNearestEven) {
    vk::Stream stream(device());
    std::vector<float> values = testing::random_values(10007, 1);
    // Ties, the largest half, what rounds to infinity, subnormal halves.
    for (const float special : {1 + 1.0f / 2048, 1 + 3.0f / 2048, 65504.0f, 65519.0f, 65520.0f,
                                -65520.0f, 6e-8f, 3e-6f, -0.0f, 0.0f})
        values.push_back(special);
    const Shape shape{static_cast<int64_t>(values.size())};
    const Tensor x = upload(stream, values, shape, DType::f32);
    const auto halves =
        fresh(stream, shape, DType::f16, [&] { return convert(stream, x, DType::f16); });
    EXPECT_EQ(halves,
              reference::map(values, [](float v) { return half_to_float(float_to_half(v)); }));
    const Tensor h = upload(stream, halves, shape, DType::f16);
    EXPECT_EQ(fresh(stream, shape, DType::f32, [&] { return convert(stream, h, DType::f32); }),
              halves);
    EXPECT_EQ(convert(stream, h, DType::f16).buffer(), h.buffer());
}

TEST(Elementwise, BroadcastAdd) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage)
        for (const auto& [rows, batch, n] :
             {std::array<int64_t, 3>{1, 1, 1}, {6, 2, 256}, {2, 3, 7}}) {
            const auto table = input(stream, {rows, n}, 1, dtype);
            for (const Shape& shape : {Shape{batch, n}, Shape{batch, rows, n}}) {
                const auto m = input(stream, shape, 2, dtype);
                EXPECT_TRUE(
                    close(fresh(stream, {rows, batch, n}, dtype,
                                [&] { return broadcast_add(stream, table.device, m.device); }),
                          reference::broadcast_add(table.host, m.host, static_cast<size_t>(n),
                                                   static_cast<size_t>(batch)),
                          tolerance(dtype)));
            }
        }
}

TEST(Elementwise, RefusesWhatDoesNotFit) {
    vk::Stream stream(device());
    const Tensor a = input(stream, {2, 6}, 1, DType::f32).device;
    const Tensor three = input(stream, {3}, 1, DType::f32).device;
    const Tensor column = input(stream, {2, 1}, 1, DType::f32).device;
    const Tensor halves = input(stream, {6}, 1, DType::f16).device;
    const Tensor integers = upload(stream, std::vector<int32_t>{1, 2}, {2});
    EXPECT_THROW(add(stream, a, three), Error);
    EXPECT_THROW(multiply(stream, a, column), Error);
    EXPECT_THROW(add(stream, a, halves), Error);
    EXPECT_THROW(add(stream, a, Tensor()), Error);
    EXPECT_THROW(add(stream, integers, integers), Error);
    EXPECT_THROW(linear_combination(stream, std::span<const Term>()), Error);
    EXPECT_THROW(linear_combination(stream, {{1, a}, {1, three}}), Error);
    EXPECT_THROW(linear_combination(stream, {{1, a}, {1, Tensor()}}), Error);
    EXPECT_THROW(affine(stream, a, three, three), Error);
    EXPECT_THROW(soft_clamp(stream, a, 0), Error);
    EXPECT_THROW(convert(stream, integers, DType::f32), Error);
    EXPECT_THROW(convert(stream, a, DType::i32), Error);
    EXPECT_THROW(broadcast_add(stream, a, column), Error);
}

}  // namespace
}  // namespace fovea
