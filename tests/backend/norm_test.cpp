#include "backend/ops/norm.h"

#include "backend/error.h"
#include "backend/reference/norm.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;
using testing::input;
using testing::tolerance;

struct Case {
    int64_t rows, n, batch;
    bool affine, modulated;
};

const Case kCases[] = {{1, 1, 1, true, true},    {7, 3, 1, true, false},
                       {6, 64, 3, false, true},  {35, 67, 5, true, true},
                       {2, 1031, 2, true, true}, {4, 256, 1, false, false},
                       {18, 192, 2, true, false}};

TEST(Norm, AgreesWithReference) {
    vk::Stream stream(device());
    for (const char* plan : testing::kRowPlans) {
        const testing::Environment forced("FOVEA_ROWS", plan);
        for (const DType dtype : testing::kStorage) {
            for (const Case& c : kCases) {
                const auto x = input(stream, {c.rows, c.n}, 1, dtype, 3);
                const auto weight = input(stream, {c.n}, 2, dtype);
                const auto bias = input(stream, {c.n}, 3, dtype);
                const auto shift = input(stream, {c.batch, c.n}, 4, dtype);
                const auto scale = input(stream, {c.batch, c.n}, 5, dtype);
                NormOptions options;
                reference::NormOptions expected;
                if (c.affine) {
                    options.weight = weight.device, options.bias = bias.device;
                    expected.weight = weight.host, expected.bias = bias.host;
                }
                if (c.modulated) {
                    options.shift = shift.device, options.scale = scale.device;
                    expected.shift = shift.host, expected.scale = scale.host;
                }
                SCOPED_TRACE(fmt::format("{} {} rows {} n {}", plan, name_of(dtype), c.rows, c.n));
                const auto n = static_cast<size_t>(c.n);
                testing::poison(stream, {c.rows, c.n}, dtype);
                EXPECT_TRUE(close(to_host(stream, layer_norm(stream, x.device, options)),
                                  reference::layer_norm(x.host, n, expected), tolerance(dtype)));
                testing::poison(stream, {c.rows, c.n}, dtype);
                EXPECT_TRUE(close(to_host(stream, rms_norm(stream, x.device, options)),
                                  reference::rms_norm(x.host, n, expected), tolerance(dtype)));
            }
        }
    }
}

// Heads of a part of a product's rows, and whole rows of one.
TEST(Norm, ColumnsOfAWiderTensor) {
    vk::Stream stream(device());
    for (const char* plan : testing::kRowPlans) {
        const testing::Environment forced("FOVEA_ROWS", plan);
        for (const DType dtype : testing::kStorage) {
            SCOPED_TRACE(fmt::format("{} {}", plan, name_of(dtype)));
            const auto x = input(stream, {2, 9, 96}, 1, dtype, 3);
            const auto weight = input(stream, {16}, 2, dtype), bias = input(stream, {48}, 3, dtype);
            const Tensor view = x.device.columns(48, 48);
            std::vector<float> dense;
            for (size_t row = 0; row < 18; ++row)
                dense.insert(dense.end(), x.host.begin() + row * 96 + 48,
                             x.host.begin() + row * 96 + 96);
            testing::poison(stream, {2, 9, 48}, dtype);
            EXPECT_TRUE(close(
                to_host(stream,
                        rms_norm(stream, view.reshape({2, 9, 3, 16}), {.weight = weight.device})),
                reference::rms_norm(dense, 16, {.weight = weight.host}), tolerance(dtype)));
            testing::poison(stream, {2, 9, 48}, dtype);
            EXPECT_TRUE(close(to_host(stream, layer_norm(stream, view, {.bias = bias.device})),
                              reference::layer_norm(dense, 48, {.bias = bias.host}),
                              tolerance(dtype)));
        }
    }
}

TEST(Norm, WeightScaleAndShiftWorkAlone) {
    vk::Stream stream(device());
    const auto x = input(stream, {4, 10}, 1, DType::f32);
    const auto v = input(stream, {10}, 2, DType::f32);
    const auto m = input(stream, {2, 10}, 3, DType::f32);
    EXPECT_TRUE(close(to_host(stream, rms_norm(stream, x.device, {.weight = v.device})),
                      reference::rms_norm(x.host, 10, {.weight = v.host}), {1e-5f, 1e-5f}));
    EXPECT_TRUE(close(to_host(stream, layer_norm(stream, x.device, {.scale = m.device})),
                      reference::layer_norm(x.host, 10, {.scale = m.host}), {1e-5f, 1e-5f}));
    EXPECT_TRUE(close(to_host(stream, layer_norm(stream, x.device, {.shift = m.device})),
                      reference::layer_norm(x.host, 10, {.shift = m.host}), {1e-5f, 1e-5f}));
}

// A sum of squares about zero loses all digits of the variance here.
TEST(Norm, LargeMeanDoesNotCancel) {
    vk::Stream stream(device());
    auto values = testing::random_values(5 * 333, 7);
    for (float& value : values) value = 4096 + value;
    const Tensor x = upload(stream, values, {5, 333}, DType::f32);
    for (const char* plan : testing::kRowPlans) {
        const testing::Environment forced("FOVEA_ROWS", plan);
        EXPECT_TRUE(close(to_host(stream, layer_norm(stream, x)),
                          reference::layer_norm(values, 333), {2e-3f, 2e-3f}));
    }
}

TEST(Norm, ConstantRowIsZeroNotNan) {
    vk::Stream stream(device());
    const Tensor x = upload(stream, std::vector<float>(3 * 70, 1e4f), {3, 70}, DType::f32);
    EXPECT_EQ(to_host(stream, layer_norm(stream, x)), std::vector<float>(3 * 70, 0.0f));
}

TEST(Norm, SameBitsEveryRun) {
    vk::Stream stream(device());
    for (const char* plan : testing::kRowPlans) {
        const testing::Environment forced("FOVEA_ROWS", plan);
        const auto x = input(stream, {9, 517}, 1, DType::f32);
        const auto first = to_host(stream, layer_norm(stream, x.device));
        for (int i = 0; i < 3; ++i) EXPECT_EQ(to_host(stream, layer_norm(stream, x.device)), first);
    }
}

TEST(Norm, RefusesWrongShapes) {
    vk::Stream stream(device());
    const auto x = input(stream, {6, 8}, 1, DType::f32);
    const auto seven = input(stream, {7}, 1, DType::f32);
    const auto halves = input(stream, {8}, 1, DType::f16);
    const auto four_rows = input(stream, {4, 8}, 1, DType::f32);
    EXPECT_THROW(layer_norm(stream, x.device, {.weight = seven.device}), Error);
    EXPECT_THROW(layer_norm(stream, x.device, {.bias = halves.device}), Error);
    EXPECT_THROW(layer_norm(stream, x.device, {.shift = four_rows.device}), Error);
    EXPECT_THROW(layer_norm(stream, Tensor()), Error);
}

}  // namespace
}  // namespace fovea
