#include "backend/ops/rope.h"

#include "backend/error.h"
#include "backend/ops/permute.h"
#include "backend/reference/norm.h"
#include "backend/reference/rope.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;
using testing::input;
using testing::tolerance;

struct Case {
    int64_t batch, heads, head_dim;
    std::array<int, 3> axes;
    std::array<int64_t, 3> grid;
};

const Case kCases[] = {
    {1, 1, 2, {0, 0, 2}, {1, 1, 1}},       {2, 4, 64, {16, 24, 24}, {1, 7, 5}},
    {1, 5, 32, {0, 16, 16}, {1, 3, 11}},   {2, 3, 17, {2, 4, 6}, {3, 2, 5}},
    {1, 1, 300, {100, 0, 96}, {2, 1, 13}}, {1, 2, 9, {0, 0, 0}, {1, 1, 6}},
};

TEST(Rope, AgreesWithReference) {
    vk::Stream stream(device());
    for (const char* plan : testing::kRowPlans) {
        const testing::Environment forced("FOVEA_ROWS", plan);
        for (const DType dtype : testing::kStorage)
            for (const Case& c : kCases) {
                const Shape shape{c.batch, c.heads, c.grid[0] * c.grid[1] * c.grid[2], c.head_dim};
                SCOPED_TRACE(fmt::format("{} {} {}", plan, name_of(dtype), to_string(shape)));
                const auto x = input(stream, shape, 1, dtype);
                const auto weight = input(stream, {c.head_dim}, 2, dtype);
                const auto n = static_cast<size_t>(c.head_dim);
                testing::poison(stream, shape, dtype);
                EXPECT_TRUE(
                    close(to_host(stream, rope(stream, x.device, {.axes = c.axes, .grid = c.grid})),
                          reference::rope(x.host, n, c.axes, c.grid, 100), tolerance(dtype)));
                testing::poison(stream, shape, dtype);
                const auto normed = reference::rms_norm(x.host, n, {.weight = weight.host});
                EXPECT_TRUE(close(to_host(stream, rope(stream, x.device,
                                                       {.axes = c.axes,
                                                        .grid = c.grid,
                                                        .theta = 10000,
                                                        .norm_weight = weight.device})),
                                  reference::rope(normed, n, c.axes, c.grid, 10000),
                                  tolerance(dtype)));
            }
    }
}

// q and k side by side in a row of a product, heads within.
TEST(Rope, TokensFirstAndColumnsOfAWiderTensor) {
    vk::Stream stream(device());
    const int64_t batch = 2, tokens = 35, heads = 3, d = 16;
    for (const char* plan : testing::kRowPlans) {
        const testing::Environment forced("FOVEA_ROWS", plan);
        for (const DType dtype : testing::kStorage) {
            SCOPED_TRACE(fmt::format("{} {}", plan, name_of(dtype)));
            const auto x = input(stream, {2, batch, heads, tokens, d}, 1, dtype);
            const auto weight = input(stream, {d}, 2, dtype);
            RopeOptions options{.axes = {2, 4, 6}, .grid = {1, 7, 5}, .norm_weight = weight.device};
            const Tensor packed =
                permute(stream, x.device, {1, 3, 0, 2, 4}).reshape({batch, tokens, 2 * heads * d});
            for (int64_t part = 0; part < 2; ++part) {
                options.layout = HeadLayout::heads_first;
                const Tensor expected =
                    permute(stream, rope(stream, x.device.index(part), options), {0, 2, 1, 3});
                options.layout = HeadLayout::tokens_first;
                const Tensor view =
                    packed.columns(part * heads * d, heads * d).reshape({batch, tokens, heads, d});
                testing::poison(stream, expected.shape(), dtype);
                const Tensor found = rope(stream, view, options);
                EXPECT_EQ(found.shape(), expected.shape());
                EXPECT_EQ(to_host(stream, found), to_host(stream, expected));
            }
        }
    }
}

// One pair at position 4999 turns by 4999 radians: fp32 angles would be off by 2e-4.
TEST(Rope, LongAxesKeepTheirAngles) {
    vk::Stream stream(device());
    const std::array<int, 3> axes{0, 0, 4};
    const std::array<int64_t, 3> grid{1, 1, 5000};
    const auto x = input(stream, {1, 1, 5000, 4}, 1, DType::f32);
    EXPECT_TRUE(close(to_host(stream, rope(stream, x.device, {.axes = axes, .grid = grid})),
                      reference::rope(x.host, 4, axes, grid, 100), {1e-6f, 1e-6f}));
}

TEST(Rope, FirstTokenStays) {
    vk::Stream stream(device());
    const auto x = input(stream, {1, 3, 1, 8}, 1, DType::f32);
    EXPECT_EQ(to_host(stream, rope(stream, x.device, {.axes = {0, 4, 4}})), x.host);
}

TEST(Rope, RefusesWrongGridsAndAxes) {
    vk::Stream stream(device());
    const auto x = input(stream, {1, 2, 6, 8}, 1, DType::f32);
    const auto weight = input(stream, {4}, 1, DType::f32);
    EXPECT_THROW(rope(stream, x.device, {.axes = {0, 4, 4}, .grid = {1, 2, 2}}), Error);
    EXPECT_THROW(rope(stream, x.device, {.axes = {0, 3, 3}, .grid = {1, 2, 3}}), Error);
    EXPECT_THROW(rope(stream, x.device, {.axes = {4, 4, 4}, .grid = {1, 2, 3}}), Error);
    EXPECT_THROW(rope(stream, x.device,
                      {.axes = {0, 4, 4}, .grid = {1, 2, 3}, .norm_weight = weight.device}),
                 Error);
}

}  // namespace
}  // namespace fovea
