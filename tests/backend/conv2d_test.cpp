#include "backend/ops/conv2d.h"

#include <gmock/gmock.h>

#include "backend/error.h"
#include "backend/ops/matrix_tile.h"
#include "backend/reference/conv2d.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using reference::Conv2dShape;
using testing::device;
using testing::Environment;
using testing::random_values;

struct Parts {
    bool bias = false;
    Activation activation = Activation::none;
    bool residual = false;
    AttentionPath path = AttentionPath::automatic;
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
    Conv2dOptions options{.stride = static_cast<int>(s.stride),
                          .activation = parts.activation,
                          .residual = {},
                          .path = parts.path};
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
        << static_cast<int>(parts.activation) << " residual " << parts.residual << " path "
        << name_of(parts.path);
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

// The modules of the scalar path that the device does not choose by itself.
TEST(Conv2d, TheOtherLoads) {
    const bool software = device().info().type == vk::DeviceType::cpu;
    const Environment forced("FOVEA_GEMM_LOADS", software ? "gpu" : "software");
    for (const DType dtype : {DType::f32, DType::f16}) {
        expect_reference({1, 4, 5, 8, 36}, dtype, {.bias = true});
        expect_reference({2, 5, 3, 3, 5, 3, 2}, dtype);
    }
}

/// On matrix units: the device's own, or emulated ones on software Vulkan.
class Conv2dMatrix : public ::testing::TestWithParam<AttentionPath> {
  protected:
    void SetUp() override {
        for (const auto& [path, support] : attention_paths(device().info()))
            if (path == GetParam() && !support.ok)
                GTEST_SKIP() << device().info().name << ": " << support.why;
    }
    void expect(const Conv2dShape& shape, Parts parts = {}) {
        parts.path = GetParam();
        expect_reference(shape, DType::f16, parts);
    }
    Environment emulate_{"FOVEA_EMULATE_MATRICES", "1"};
};
// nv2 runs the same kernels; gemm_test.cpp chooses both.
INSTANTIATE_TEST_SUITE_P(Paths, Conv2dMatrix, ::testing::Values(AttentionPath::khr),
                         [](const auto& path) { return std::string(name_of(path.param)); });

TEST_P(Conv2dMatrix, AwkwardShapes) {
    const Conv2dShape shapes[] = {
        {1, 1, 1, 8, 8},         {1, 2, 3, 8, 16},       {2, 5, 7, 16, 24},
        {3, 6, 5, 24, 64},       {1, 3, 67, 8, 8},       {1, 17, 2, 40, 32},
        {2, 4, 4, 72, 24},       {1, 1, 9, 64, 48, 1},   {2, 3, 5, 8, 16, 1},
        {1, 20, 3, 16, 40, 1},   {1, 8, 8, 8, 24, 3, 2}, {2, 7, 9, 16, 24, 3, 2},
        {2, 8, 6, 8, 8, 1, 2},   {1, 9, 7, 16, 3},       {1, 5, 6, 8, 19, 3, 2},
        {1, 11, 10, 8, 8, 3, 3},
    };
    for (const Conv2dShape& shape : shapes) expect(shape);
}

TEST_P(Conv2dMatrix, EveryEpilogue) {
    for (int mask = 0; mask < 4; ++mask)
        for (const Activation activation :
             {Activation::none, Activation::relu, Activation::gelu, Activation::silu})
            expect(
                {1, 4, 5, 8, 16},
                {.bias = (mask & 1) != 0, .activation = activation, .residual = (mask & 2) != 0});
}

// Every tile the device can run, on images of more than one tile where it has matrix units.
TEST_P(Conv2dMatrix, EveryTile) {
    const bool emulated = device().info().fp16_matrices.empty();
    for (const MatrixTile& tile : matrix_tiles()) {
        if (!supports(device().info(), tile).ok) continue;
        if (emulated && tile.rows * tile.columns > 32 * 64) continue;
        const Environment forced("FOVEA_GEMM_TILE", to_string(tile).c_str());
        SCOPED_TRACE(to_string(tile));
        if (emulated)
            expect({1, 3, 13, 8, 24}, {.bias = true});
        else
            expect({2, 23, 19, 24, tile.columns + 8}, {.bias = true, .residual = true});
    }
}

// Slabs that end with taps, and not; parts of k that begin inside one.
TEST_P(Conv2dMatrix, SlabsAndTaps) {
    for (const char* tile : {"32x32x64:2x2:1x1", "32x32x64:2x2:1x1:2"}) {
        const Environment forced("FOVEA_GEMM_TILE", tile);
        SCOPED_TRACE(tile);
        for (const size_t channels : {8u, 24u, 128u}) expect({1, 7, 6, channels, 8});
        expect({1, 7, 6, 128, 8, 1});
    }
}

TEST_P(Conv2dMatrix, SplitsOfK) {
    const Environment forced("FOVEA_GEMM_TILE", "32x32x64:2x2:1x1:3");
    expect({1, 5, 9, 40, 40}, {.bias = true, .activation = Activation::silu, .residual = true});
}

// Right of the border lies the next line's first pixel in memory, here an infinity.
TEST_P(Conv2dMatrix, PaddingIsZeroWhateverLiesThere) {
    vk::Stream stream(device());
    std::vector<float> x(5 * 5 * 8, 1.0f);
    std::fill_n(x.begin() + 4 * 5 * 8, 8, INFINITY);  // first pixel of the last line
    std::vector<float> w(9 * 8 * 8, 0.0f);
    std::fill_n(w.begin() + 8 * 64, 64, 1.0f);  // the tap down and right alone
    const Tensor y = conv2d(stream, upload(stream, x, {1, 5, 5, 8}, DType::f16),
                            upload(stream, w, {3, 3, 8, 8}, DType::f16), {.path = GetParam()});
    const auto found = to_host(stream, y);
    for (int column = 0; column < 5; ++column)
        EXPECT_EQ(found[(2 * 5 + column) * 8], column < 4 ? 8.0f : 0.0f);
    for (int column = 2; column < 5; ++column) EXPECT_EQ(found[(4 * 5 + column) * 8], 0.0f);
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
