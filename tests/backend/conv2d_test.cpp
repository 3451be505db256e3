#include "backend/ops/conv2d.h"

#include <gmock/gmock.h>

#include "backend/error.h"
#include "backend/reference/conv2d.h"
#include "tests/testing.h"

namespace fovea {
namespace {

using reference::Conv2dShape;
using testing::device;
using testing::random_values;

struct Parts {
    bool bias = false;
    Activation activation = Activation::none;
    bool residual = false;
};

void expect_reference(const Conv2dShape& s, DType dtype, const Parts& parts = {}) {
    const auto size = [](size_t n) { return static_cast<int64_t>(n); };
    const Shape x_shape{size(s.batch), size(s.height), size(s.width), size(s.ci)};
    const Shape w_shape{size(s.kernel), size(s.kernel), size(s.ci), size(s.co)};
    const Shape y_shape{size(s.batch), size(s.rows()), size(s.columns()), size(s.co)};
    const size_t y_size = s.batch * s.rows() * s.columns() * s.co;
    const size_t k = s.kernel * s.kernel * s.ci;

    const auto x = random_values(s.batch * s.height * s.width * s.ci, 1, dtype);
    const auto w = random_values(k * s.co, 2, dtype, 1 / std::sqrt(static_cast<float>(k)));
    std::vector<float> bias, residual;
    vk::Stream stream(device());
    Conv2dOptions options{.stride = static_cast<int>(s.stride), .activation = parts.activation};
    if (parts.bias) {
        bias = random_values(s.co, 3, dtype);
        options.bias = upload(stream, bias, {size(s.co)}, dtype);
    }
    if (parts.residual) {
        residual = random_values(y_size, 4, dtype);
        options.residual = upload(stream, residual, y_shape, dtype);
    }
    const Tensor tx = upload(stream, x, x_shape, dtype), tw = upload(stream, w, w_shape, dtype);
    {
        // Pooled memory of y's size holds NaNs before: an element never written is seen.
        const Tensor t = empty(device(), y_shape, dtype);
        stream.fill({t.buffer(), 0, t.buffer()->bytes(), vk::Access::Mode::write}, 0xffffffffu);
    }
    const Tensor y = conv2d(stream, tx, tw, options);
    EXPECT_EQ(y.shape(), y_shape);
    EXPECT_TRUE(testing::close(to_host(stream, y),
                               reference::conv2d(x, w, s, bias, parts.activation, residual),
                               testing::tolerance(dtype)))
        << to_string(x_shape) << " * " << to_string(w_shape) << " stride " << s.stride << " "
        << name_of(dtype) << " bias " << parts.bias << " activation "
        << static_cast<int>(parts.activation) << " residual " << parts.residual;
}

TEST(Conv2d, AwkwardShapes) {
    const Conv2dShape shapes[] = {
        {1, 1, 1, 1, 1},     {1, 1, 1, 4, 4},       {1, 2, 3, 3, 5},    {2, 5, 7, 3, 3},
        {1, 9, 4, 4, 8},     {3, 6, 5, 12, 64},     {1, 16, 16, 64, 3}, {2, 7, 3, 20, 28},
        {1, 3, 67, 8, 12},   {1, 33, 2, 5, 17},     {2, 4, 4, 160, 24}, {1, 1, 9, 64, 48, 1},
        {2, 3, 5, 7, 11, 1}, {1, 40, 3, 16, 36, 1},
    };
    for (const DType dtype : {DType::f32, DType::f16})
        for (const Conv2dShape& shape : shapes) expect_reference(shape, dtype);
}

TEST(Conv2d, Strides) {
    const Conv2dShape shapes[] = {
        {1, 8, 8, 3, 24, 3, 2}, {2, 7, 9, 3, 24, 3, 2}, {1, 1, 5, 4, 4, 3, 2},
        {1, 9, 9, 8, 12, 1, 2}, {2, 8, 6, 5, 7, 1, 2},  {1, 11, 10, 4, 4, 3, 3},
    };
    for (const DType dtype : {DType::f32, DType::f16})
        for (const Conv2dShape& shape : shapes) expect_reference(shape, dtype);
}

// Few pixels, and vector loads and scalar ones in turns, as in gemm_test.cpp.
TEST(Conv2d, EveryEpilogue) {
    for (int mask = 0; mask < 4; ++mask)
        for (const Activation activation :
             {Activation::none, Activation::relu, Activation::gelu, Activation::silu}) {
            const bool vector = (mask + static_cast<int>(activation)) % 2 == 0;
            const Conv2dShape shape{1, 2, 3, vector ? 4u : 3u, vector ? 12u : 7u};
            const Parts parts{
                .bias = (mask & 1) != 0, .activation = activation, .residual = (mask & 2) != 0};
            expect_reference(shape, DType::f32, parts);
            if (mask == static_cast<int>(activation)) expect_reference(shape, DType::f16, parts);
        }
}

// The clamped pixels that stand in for the padding hold infinities: 0 times one would be NaN.
TEST(Conv2d, PaddingIsZeroWhateverTheBorderHolds) {
    vk::Stream stream(device());
    std::vector<float> x(5 * 5 * 4, 1.0f);
    for (int c = 0; c < 4; ++c) x[c] = INFINITY;  // the pixel in the corner
    std::vector<float> w(9 * 4 * 4, 0.0f);
    for (int i = 0; i < 16; ++i) w[i] = 1.0f;  // the tap up and left alone
    const Tensor y = conv2d(stream, upload(stream, x, {1, 5, 5, 4}, DType::f32),
                            upload(stream, w, {3, 3, 4, 4}, DType::f32));
    const auto found = to_host(stream, y);
    for (int column = 2; column < 5; ++column) EXPECT_EQ(found[column * 4], 0.0f);
    EXPECT_EQ(found[(3 * 5 + 3) * 4], 4.0f);
}

// The modules the device does not choose by itself.
TEST(Conv2d, TheOtherPath) {
    const bool software = device().info().type == vk::DeviceType::cpu;
    setenv("FOVEA_GEMM_PATH", software ? "scalar" : "software", 1);
    for (const DType dtype : {DType::f32, DType::f16}) {
        expect_reference({1, 4, 5, 8, 36}, dtype, {.bias = true});
        expect_reference({2, 5, 3, 3, 5, 3, 2}, dtype);
    }
    unsetenv("FOVEA_GEMM_PATH");
}

TEST(Conv2d, RefusesWhatDoesNotFit) {
    vk::Stream stream(device());
    const auto tensor = [](Shape shape, DType dtype = DType::f32) {
        return empty(device(), std::move(shape), dtype);
    };
    const auto message = [&](const Tensor& x, const Tensor& w, const Conv2dOptions& options = {}) {
        try {
            conv2d(stream, x, w, options);
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string("accepted");
    };
    using ::testing::HasSubstr;
    const Tensor x = tensor({1, 4, 4, 3}), w = tensor({3, 3, 3, 8});
    EXPECT_THAT(message(x, tensor({3, 3, 4, 8})), HasSubstr("[conv2d]"));
    EXPECT_THAT(message(x, tensor({5, 5, 3, 8})), HasSubstr("(5, 5, 3, 8)"));
    EXPECT_THAT(message(x, tensor({3, 1, 3, 8})), HasSubstr("kh = kw"));
    EXPECT_THAT(message(x, tensor({3, 3, 3, 8}, DType::f16)), HasSubstr("f16"));
    EXPECT_THAT(message(x, w, {.bias = tensor({3})}), HasSubstr("bias"));
    EXPECT_THAT(message(x, w, {.stride = 0}), HasSubstr("stride"));
    EXPECT_THAT(message(x, w, {.stride = 2, .residual = tensor({1, 4, 4, 8})}),
                HasSubstr("residual"));
}

}  // namespace
}  // namespace fovea
