#include "backend/ops/routed.h"

#include "backend/error.h"
#include "backend/reference/routed.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using reference::RoutedShape;
using testing::close;
using testing::device;

void expect_reference(const RoutedShape& s, DType dtype) {
    SCOPED_TRACE(fmt::format("{} {}×{} in {}×{} keep {}", name_of(dtype), s.rows, s.columns,
                             s.region_rows, s.region_columns, s.keep));
    vk::Stream stream(device());
    const auto size = [](size_t n) { return static_cast<int64_t>(n); };
    const auto u = [](size_t n) { return static_cast<uint32_t>(n); };
    const auto shape = [&](size_t dims) {
        return Shape{size(s.batch), size(s.tokens()), size(s.heads), size(dims)};
    };
    const auto q = testing::input(stream, shape(s.head_dim), 1, dtype, 2),
               k = testing::input(stream, shape(s.head_dim), 2, dtype, 2),
               v = testing::input(stream, shape(s.v_dim), 3, dtype);
    Tensor kept;
    const Tensor o = routed_attention(stream, q.device, k.device, v.device,
                                      {.rows = u(s.rows),
                                       .columns = u(s.columns),
                                       .region_rows = u(s.region_rows),
                                       .region_columns = u(s.region_columns),
                                       .keep = u(s.keep),
                                       .kept = &kept});
    EXPECT_TRUE(close(to_host(stream, o), reference::routed_attention(q.host, k.host, v.host, s),
                      testing::tolerance(dtype)));
    std::vector<uint32_t> counts(s.batch * s.region_rows * s.region_columns);
    stream.download(read(kept), std::as_writable_bytes(std::span(counts)));
    for (const uint32_t count : counts) EXPECT_EQ(count, s.keep);
}

TEST(Routed, AgreesWithReference) {
    for (const DType dtype : testing::kStorage) {
        expect_reference({1, 7, 14, 2, 16, 16, 7, 7, 4}, dtype);   // regions of 1 × 2 tokens
        expect_reference({2, 10, 12, 3, 16, 16, 2, 3, 2}, dtype);  // of 5 × 4
        expect_reference({1, 16, 24, 1, 16, 16, 2, 2, 1}, dtype);  // of more than a tile
    }
}

TEST(Routed, AllRegionsAreDenseAttention) {
    vk::Stream stream(device());
    const Shape shape{2, 24, 2, 16};
    const auto q = testing::input(stream, shape, 1, DType::f32),
               k = testing::input(stream, shape, 2, DType::f32),
               v = testing::input(stream, shape, 3, DType::f32);
    const Tensor o = routed_attention(
        stream, q.device, k.device, v.device,
        {.rows = 4, .columns = 6, .region_rows = 2, .region_columns = 3, .keep = 6, .scale = 0.3f});
    EXPECT_TRUE(
        close(to_host(stream, o),
              to_host(stream, attention(stream, q.device, k.device, v.device, dense(),
                                        {.scale = 0.3f, .layout = HeadLayout::tokens_first})),
              testing::tolerance(DType::f32)));
}

TEST(Routed, RefusesWhatDoesNotFit) {
    vk::Stream stream(device());
    const Tensor x = empty(device(), {1, 24, 2, 16}, DType::f32);
    const auto run = [&](const RoutedOptions& options) {
        return routed_attention(stream, x, x, x, options);
    };
    EXPECT_THROW(run({.rows = 4, .columns = 6}), Error);  // not in 7 × 7
    EXPECT_THROW(run({.rows = 4, .columns = 4, .region_rows = 2, .region_columns = 2}), Error);
    EXPECT_THROW(run({.rows = 4, .columns = 6, .region_rows = 2, .region_columns = 2, .keep = 5}),
                 Error);
}

}  // namespace
}  // namespace fovea
