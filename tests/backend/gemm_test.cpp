#include "backend/ops/gemm.h"

#include <gmock/gmock.h>

#include "backend/error.h"
#include "backend/ops/matrix_tile.h"
#include "backend/ops/thin.h"
#include "backend/reference/gemm.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::device;
using testing::Environment;
using testing::random_values;

struct Parts {
    bool bias = false;
    Activation activation = Activation::none;
    int64_t batch = 0;  ///< rows of the gate; 0: none
    bool residual = false;
    Activation x_activation = Activation::none;
    AttentionPath path = AttentionPath::automatic;
};

// Pooled memory of y's size holds NaNs before: an element never written is seen.
void poison(vk::Stream& stream, const Shape& shape, DType dtype) {
    const Tensor t = empty(device(), shape, dtype);
    stream.fill({t.buffer(), 0, t.buffer()->bytes(), vk::Access::Mode::write}, 0xffffffffu);
}

void expect_reference(int64_t m, int64_t n, int64_t k, DType dtype, const Parts& parts = {}) {
    const float scale = 1 / std::sqrt(static_cast<float>(k));
    const auto x = random_values(m * k, 1, dtype), w = random_values(k * n, 2, dtype, scale);
    std::vector<float> bias, gate, residual;
    vk::Stream stream(device());
    GemmOptions options{
        .activation = parts.activation, .x_activation = parts.x_activation, .path = parts.path};
    if (parts.bias) {
        bias = random_values(n, 3, dtype);
        options.bias = upload(stream, bias, {n}, dtype);
    }
    if (parts.batch > 0) {
        gate = random_values(parts.batch * n, 4, dtype);
        options.gate = upload(stream, gate, {parts.batch, n}, dtype);
    }
    if (parts.residual) {
        residual = random_values(m * n, 5, dtype);
        options.residual = upload(stream, residual, {m, n}, dtype);
    }
    const Tensor tx = upload(stream, x, {m, k}, dtype), tw = upload(stream, w, {k, n}, dtype);
    poison(stream, {m, n}, dtype);
    const Tensor y = gemm(stream, tx, tw, options);
    EXPECT_EQ(y.shape(), (Shape{m, n}));
    auto in = x;
    for (float& value : in)
        value = static_cast<float>(reference::activate(value, parts.x_activation));
    EXPECT_TRUE(testing::close(
        to_host(stream, y), reference::gemm(in, w, m, n, k, bias, parts.activation, gate, residual),
        testing::tolerance(dtype)))
        << m << " x " << n << " x " << k << " " << name_of(dtype) << " bias " << parts.bias
        << " activation " << static_cast<int>(parts.activation) << " gate " << parts.batch
        << " residual " << parts.residual << " path " << name_of(parts.path);
}

TEST(Gemm, AwkwardShapes) {
    const int64_t shapes[][3] = {{1, 1, 1},    {1, 3, 7},      {2, 64, 12},  {3, 5, 4},
                                 {7, 13, 31},  {8, 8, 8},      {9, 12, 160}, {17, 1, 33},
                                 {31, 37, 41}, {33, 36, 48},   {64, 24, 64}, {67, 100, 20},
                                 {1, 257, 64}, {130, 132, 68}, {5, 3, 515}};
    for (const DType dtype : {DType::f32, DType::f16})
        for (const auto& [m, n, k] : shapes) expect_reference(m, n, k, dtype);
}

// Few rows: on software Vulkan every combination compiles for a third of a second. All of them in
// f32, each part and activation in f16; vector loads and scalar ones in turns.
TEST(Gemm, EveryEpilogue) {
    for (int mask = 0; mask < 8; ++mask)
        for (const Activation activation :
             {Activation::none, Activation::relu, Activation::gelu, Activation::silu}) {
            const int number = mask + static_cast<int>(activation);
            const Parts parts{.bias = (mask & 1) != 0,
                              .activation = activation,
                              .batch = (mask & 2) != 0 ? 3 : 0,
                              .residual = (mask & 4) != 0};
            const int64_t n = number % 2 == 0 ? 20 : 7, k = number % 2 == 0 ? 16 : 13;
            expect_reference(6, n, k, DType::f32, parts);
            if (mask % 4 == static_cast<int>(activation))
                expect_reference(6, n, k, DType::f16, parts);
        }
}

TEST(Gemm, GateRowFollowsTheBatch) {
    for (const int64_t batch : {1, 2, 5, 10})
        expect_reference(10, 8, 8, DType::f32, {.batch = batch});
}

TEST(Gemm, LargeValuesSaturateActivationsCleanly) {
    vk::Stream stream(device());
    const std::vector<float> x{-1e4f, -100, -10, 0, 10, 100, 1e4f}, one{1};
    const Tensor tx = upload(stream, x, {7, 1}, DType::f32);
    const Tensor tw = upload(stream, one, {1, 1}, DType::f32);
    for (const Activation activation : {Activation::relu, Activation::gelu, Activation::silu})
        EXPECT_TRUE(testing::close(
            to_host(stream, gemm(stream, tx, tw, {.activation = activation})),
            reference::gemm(x, one, 7, 1, 1, {}, activation), testing::tolerance(DType::f32)));
}

TEST(Gemm, KeepsLeadingAxes) {
    vk::Stream stream(device());
    const auto x = random_values(2 * 3 * 4, 1), w = random_values(4 * 5, 2);
    const Tensor tx = upload(stream, x, {2, 3, 4}, DType::f32);
    const Tensor tw = upload(stream, w, {4, 5}, DType::f32);
    EXPECT_EQ(gemm(stream, tx, tw).shape(), (Shape{2, 3, 5}));
    const Tensor row = gemm(stream, tx.reshape({6, 4}).index(4), tw);
    EXPECT_EQ(row.shape(), (Shape{5}));
    EXPECT_TRUE(testing::close(to_host(stream, row),
                               reference::gemm(std::span(x).subspan(16, 4), w, 1, 5, 4),
                               testing::tolerance(DType::f32)));
}

// More row tiles than one grid axis holds.
TEST(Gemm, ManyRows) {
    const int64_t m = int64_t{65535} * 32 + 5;
    vk::Stream stream(device());
    std::vector<float> x(m);
    for (int64_t i = 0; i < m; ++i) x[i] = static_cast<float>(i % 1021);
    const std::vector<float> w{2};
    const Tensor tx = upload(stream, x, {m, 1}, DType::f32);
    const Tensor tw = upload(stream, w, {1, 1}, DType::f32);
    poison(stream, {m, 1}, DType::f32);
    const auto y = to_host(stream, gemm(stream, tx, tw));
    EXPECT_TRUE(testing::close(y, reference::gemm(x, w, m, 1, 1), {0, 0}));
}

// The modules of the scalar path that the device does not choose by itself.
TEST(Gemm, TheOtherLoads) {
    const bool software = device().info().type == vk::DeviceType::cpu;
    const Environment forced("FOVEA_GEMM_LOADS", software ? "gpu" : "software");
    for (const DType dtype : {DType::f32, DType::f16}) {
        expect_reference(13, 20, 12, dtype, {.bias = true, .residual = true});
        expect_reference(5, 7, 9, dtype);
    }
}

/// Few rows as on GPUs; every shape that is not thin is one of the kernels above.
class GemmThin : public ::testing::Test {
  protected:
    bool thin(int64_t m, int64_t n, int64_t k, DType dtype) {
        return takes_thin(device().info(), dtype, m, n, k);
    }
    Environment gpu_{"FOVEA_GEMM_LOADS", "gpu"};
};

// A power of two of rows is a pipeline, and so are an activation of x and a width of groups.
TEST_F(GemmThin, RowsOfOneToMoreThanAWorkgroups) {
    for (const int64_t m : {1, 3, 8, 13})
        for (const DType dtype : {DType::f32, DType::f16}) {
            if (m > 8 && dtype == DType::f16) continue;
            EXPECT_TRUE(thin(m, 72, 200, dtype));
            expect_reference(m, 72, 200, dtype, {.bias = true, .batch = m, .residual = true});
        }
    EXPECT_FALSE(thin(33, 72, 200, DType::f32));
    EXPECT_FALSE(thin(9, 72, 200, DType::f16));
}

TEST_F(GemmThin, ShapesOfOneVectorToManyGroups) {
    const int64_t shapes[][2] = {{8, 8}, {24, 1152}, {4104, 72}, {8200, 40}, {40, 4104}};
    for (const DType dtype : {DType::f32, DType::f16})
        for (const auto& [n, k] : shapes) {
            EXPECT_TRUE(thin(1, n, k, dtype));
            expect_reference(1, n, k, dtype, {.bias = true});
        }
}

TEST_F(GemmThin, WhatDoesNotFitVectorsRunsElsewhere) {
    const int64_t shapes[][2] = {{7, 16}, {20, 12}};
    for (const DType dtype : {DType::f32, DType::f16})
        for (const auto& [n, k] : shapes) {
            EXPECT_FALSE(thin(1, n, k, dtype));
            expect_reference(1, n, k, dtype, {.residual = true, .x_activation = Activation::silu});
        }
    EXPECT_TRUE(thin(1, 12, 16, DType::f32));  // vectors of four
    EXPECT_FALSE(thin(1, 12, 16, DType::f16));
}

TEST_F(GemmThin, EveryEpilogue) {
    for (int mask = 0; mask < 8; ++mask)
        for (const Activation activation :
             {Activation::none, Activation::relu, Activation::gelu, Activation::silu})
            for (const DType dtype : {DType::f32, DType::f16})
                expect_reference(6, 24, 40, dtype,
                                 {.bias = (mask & 1) != 0,
                                  .activation = activation,
                                  .batch = (mask & 2) != 0 ? 3 : 0,
                                  .residual = (mask & 4) != 0});
}

TEST_F(GemmThin, ActivationsOfX) {
    expect_reference(1, 24, 40, DType::f32, {.bias = true, .x_activation = Activation::silu});
    expect_reference(1, 24, 40, DType::f16, {.bias = true, .x_activation = Activation::silu});
    expect_reference(1, 24, 40, DType::f32,
                     {.activation = Activation::relu, .x_activation = Activation::gelu});
}

TEST_F(GemmThin, ARowHasTheSameBitsWhateverIsBesideIt) {
    const int64_t n = 1032, k = 1160;
    for (const DType dtype : {DType::f32, DType::f16}) {
        vk::Stream stream(device());
        const int64_t most = dtype == DType::f16 ? 8 : 32;
        const Tensor x = upload(stream, random_values(most * k, 1, dtype), {most, k}, dtype);
        const Tensor w = upload(stream, random_values(k * n, 2, dtype), {k, n}, dtype);
        const auto all = to_host(stream, gemm(stream, x, w));
        for (const int64_t m : {1, 2, 5}) {
            const auto some = to_host(stream, gemm(stream, x.slice(most - m, m), w));
            EXPECT_TRUE(std::equal(some.rbegin(), some.rend(), all.rbegin())) << m;
        }
    }
}

TEST_F(GemmThin, IsChosenUnlessAPathIsForced) {
    const Environment emulate("FOVEA_EMULATE_MATRICES", "1");
    const vk::DeviceInfo& info = device().info();
    EXPECT_EQ(gemm_path(info, DType::f16, 1, 64, 64), AttentionPath::scalar);
    EXPECT_EQ(gemm_path(info, DType::f16, 9, 64, 64), product_path(info, DType::f16, 64));
    for (const auto& [path, support] : attention_paths(info)) {
        if (!support.ok) continue;
        EXPECT_EQ(gemm_path(info, DType::f16, 1, 64, 64, path), path);
        const Environment forced("FOVEA_PATH", name_of(path));
        EXPECT_EQ(gemm_path(info, DType::f16, 1, 64, 64), path);
    }
}

TEST(Gemm, OnCpusFewRowsAreLikeMany) {
    vk::DeviceInfo info = device().info();
    info.type = vk::DeviceType::cpu;
    EXPECT_FALSE(takes_thin(info, DType::f32, 1, 64, 64));
    info.type = vk::DeviceType::discrete;
    EXPECT_TRUE(takes_thin(info, DType::f32, 1, 64, 64));
}

/// On matrix units: the device's own, or emulated ones on software Vulkan.
class GemmMatrix : public ::testing::TestWithParam<AttentionPath> {
  protected:
    void SetUp() override {
        for (const auto& [path, support] : attention_paths(device().info()))
            if (path == GetParam() && !support.ok)
                GTEST_SKIP() << device().info().name << ": " << support.why;
        if (device().info().fp16_matrices.empty() && GetParam() == AttentionPath::nv2)
            GTEST_SKIP() << "emulated matrices compile for long, and khr runs the same kernels";
    }
    void expect(int64_t m, int64_t n, int64_t k, Parts parts = {}) {
        parts.path = GetParam();
        expect_reference(m, n, k, DType::f16, parts);
    }
    Environment emulate_{"FOVEA_EMULATE_MATRICES", "1"};
};
INSTANTIATE_TEST_SUITE_P(Paths, GemmMatrix,
                         ::testing::Values(AttentionPath::khr, AttentionPath::nv2),
                         [](const auto& path) { return std::string(name_of(path.param)); });

TEST_P(GemmMatrix, AwkwardShapes) {
    const int64_t shapes[][3] = {{1, 8, 8},    {2, 64, 16},   {17, 24, 40}, {33, 72, 56},
                                 {65, 40, 64}, {7, 200, 136}, {130, 8, 24}, {31, 32, 264}};
    for (const auto& [m, n, k] : shapes) expect(m, n, k);
}

TEST_P(GemmMatrix, EveryEpilogue) {
    for (int mask = 0; mask < 8; ++mask)
        for (const Activation activation :
             {Activation::none, Activation::relu, Activation::gelu, Activation::silu})
            expect(18, 24, 32,
                   {.bias = (mask & 1) != 0,
                    .activation = activation,
                    .batch = (mask & 2) != 0 ? 3 : 0,
                    .residual = (mask & 4) != 0});
}

// Every tile the device can run (the smaller ones where matrices are emulated, which compiles for
// long), over more than one tile each way where it has matrix units; last slabs that are part of
// one, and an odd number of them.
TEST_P(GemmMatrix, EveryTile) {
    const bool emulated = device().info().fp16_matrices.empty();
    int run = 0;
    for (const MatrixTile& tile : matrix_tiles()) {
        if (!supports(device().info(), tile).ok) continue;
        if (emulated && tile.rows * tile.columns > 32 * 64) continue;
        ++run;
        const Environment forced("FOVEA_GEMM_TILE", to_string(tile).c_str());
        SCOPED_TRACE(to_string(tile));
        if (emulated) {
            expect(tile.rows / 2 + 1, tile.columns - 8, tile.depth + 8, {.bias = true});
            continue;
        }
        expect(tile.rows + 5, 2 * tile.columns - 8, 2 * tile.depth + 8, {.bias = true});
        expect(11 * tile.rows - 1, 3 * tile.columns, 8 * tile.depth, {.residual = true});
    }
    EXPECT_GT(run, 0);
}

TEST_P(GemmMatrix, ManyTilesInBands) {
    const Environment forced("FOVEA_GEMM_TILE", "32x32x64:2x2:1x1");
    expect(32 * 11 - 3, 32 * 3 - 8, 8);
}

// Rows of w and y that start anywhere.
TEST_P(GemmMatrix, AnyNumberOfColumns) {
    for (const int64_t n : {1, 3, 7, 12, 67})
        expect(37, n, 72,
               {.bias = true, .activation = Activation::gelu, .batch = 37, .residual = true});
    const Environment forced("FOVEA_GEMM_TILE", "32x32x64:2x2:1x1:3");
    expect(37, 45, 200, {.bias = true, .batch = 1, .residual = true});
}

TEST_P(GemmMatrix, SplitsOfK) {
    for (const char* tile : {"32x32x64:2x2:1x1:2", "32x32x64:2x2:1x1:7", "64x64x32:2x2:2x2:3"}) {
        const Environment forced("FOVEA_GEMM_TILE", tile);
        SCOPED_TRACE(tile);
        for (const int64_t k : {8, 72, 328})
            expect(35, 40, k,
                   {.bias = true, .activation = Activation::silu, .batch = 5, .residual = true});
    }
}

TEST_P(GemmMatrix, WhatIsPastTheEndOfKCountsAsZero) {
    // Rows of x and w beyond the last slab's k belong to other rows: infinities there must not
    // reach.
    const int64_t m = 4, n = 8, k = 8;
    std::vector<float> x(2 * m * k, INFINITY), w(2 * k * n, INFINITY);
    std::fill_n(x.begin(), m * k, 1.0f);
    std::fill_n(w.begin(), k * n, 2.0f);
    vk::Stream stream(device());
    const Tensor tx = upload(stream, x, {2 * m, k}, DType::f16).slice(0, m);
    const Tensor tw = upload(stream, w, {2 * k, n}, DType::f16).slice(0, k);
    for (const float found : to_host(stream, gemm(stream, tx, tw, {.path = GetParam()})))
        EXPECT_EQ(found, 16.0f);
}

TEST_P(GemmMatrix, SameBitsEveryTime) {
    const auto x = random_values(40 * 2056, 1, DType::f16),
               w = random_values(2056 * 16, 2, DType::f16);
    vk::Stream stream(device());
    const Tensor tx = upload(stream, x, {40, 2056}, DType::f16);
    const Tensor tw = upload(stream, w, {2056, 16}, DType::f16);
    const auto once = to_host(stream, gemm(stream, tx, tw, {.path = GetParam()}));
    EXPECT_EQ(once, to_host(stream, gemm(stream, tx, tw, {.path = GetParam()})));
}

TEST(GemmPath, ForcedPathsFallBackOnlyForWhatTensorsAre) {
    const Environment emulate("FOVEA_EMULATE_MATRICES", "1");
    const vk::DeviceInfo& info = device().info();
    for (const auto& [path, support] : attention_paths(info)) {
        const Environment forced("FOVEA_PATH", name_of(path));
        SCOPED_TRACE(name_of(path));
        if (!support.ok) {
            EXPECT_THROW(product_path(info, DType::f16, 64), Error);
            continue;
        }
        EXPECT_EQ(product_path(info, DType::f16, 64), path);
        EXPECT_EQ(product_path(info, DType::f16, 60), AttentionPath::scalar);
        EXPECT_EQ(product_path(info, DType::f32, 64), AttentionPath::scalar);
        if (path == AttentionPath::scalar) continue;
        EXPECT_THROW(product_path(info, DType::f32, 64, path), Error);
        EXPECT_THROW(product_path(info, DType::f16, 60, path), Error);
        EXPECT_EQ(product_path(info, DType::f16, 64, AttentionPath::scalar), AttentionPath::scalar);
    }
}

TEST(GemmPath, TilesThatTheKernelCannotTakeAreRefused) {
    const Environment emulate("FOVEA_EMULATE_MATRICES", "1");
    for (const char* tile :
         {"", "64x64x32", "64x64x32:2x2:1", "64x64x32:2x2:3x1", "64x64x32:2x2:1x3",
          "64x64x32:2x2:0x1", "64x64x24:2x2:1x1", "40x64x32:2x2:1x1", "64x64x32:2x2:1x1:1",
          "64x64x32:2x2:1x1 ", "4096x4096x32:2x2:1x1", "64x64x32:64x64:1x1"}) {
        const Environment forced("FOVEA_GEMM_TILE", tile);
        EXPECT_THROW(choose_matrix_tile(device().info(), 64, 64, 64), Error) << tile;
    }
}

TEST(GemmPath, TilesFollowTheShape) {
    const Environment by_rule("FOVEA_TUNE", "off");
    vk::DeviceInfo large = device().info();  // as GPUs usually are
    large.fp16_matrices = {{16, 16, 16}};
    large.limits.subgroup_size = 32;
    large.limits.workgroup_invocations = 1024;
    large.limits.shared_memory = 48 << 10;
    const auto chosen = [&](int64_t m, int64_t n, int64_t k) {
        return to_string(choose_matrix_tile(large, m, n, k));
    };
    EXPECT_EQ(chosen(8192, 8192, 8192), "128x256x32:2x4:1x1");
    EXPECT_EQ(chosen(1 << 20, 128, 1152), "128x128x32:2x2:1x1");
    EXPECT_EQ(chosen(1024, 3456, 1152), "128x128x32:2x2:1x1");
    EXPECT_GT(choose_matrix_tile(large, 1024, 1152, 4608).splits, 1u);
    EXPECT_EQ(chosen(65536, 3, 576), "128x16x64:4x1:1x1");
    EXPECT_EQ(chosen(64, 64, 64), "32x32x64:2x2:1x1");
    EXPECT_GT(choose_matrix_tile(large, 64, 64, 8192).splits, 1u);
}

TEST(Gemm, RefusesWhatDoesNotFit) {
    vk::Stream stream(device());
    const auto tensor = [](Shape shape, DType dtype = DType::f32) {
        return empty(device(), std::move(shape), dtype);
    };
    const auto message = [&](const Tensor& x, const Tensor& w, const GemmOptions& options = {}) {
        try {
            gemm(stream, x, w, options);
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string("accepted");
    };
    using ::testing::HasSubstr;
    EXPECT_THAT(message(tensor({2, 3}), tensor({4, 5})), HasSubstr("[gemm]"));
    EXPECT_THAT(message(tensor({2, 3}), tensor({4, 5})), HasSubstr("(4, 5)"));
    EXPECT_THAT(message(tensor({2, 3}), tensor({3, 5}, DType::f16)), HasSubstr("f16"));
    EXPECT_THAT(message(tensor({2, 3}), tensor({3, 5}), {.bias = tensor({4})}), HasSubstr("bias"));
    EXPECT_THAT(message(tensor({2, 3}), tensor({3, 5}), {.residual = tensor({2, 3})}),
                HasSubstr("residual"));
    EXPECT_THAT(message(tensor({2, 3}), tensor({3, 5}), {.gate = tensor({3, 5})}),
                HasSubstr("gate"));
    EXPECT_THAT(message({}, tensor({3, 5})), HasSubstr("absent"));
}

}  // namespace
}  // namespace fovea
