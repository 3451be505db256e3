#include "backend/ops/quantize.h"

#include <fmt/format.h>

#include <cmath>

#include "backend/patterns/dense.h"
#include "backend/patterns/planner.h"
#include "backend/patterns/reordered.h"
#include "backend/reference/quantize.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::device;

/// Four heads whose tokens lie in two orders.
Pattern two_orders() {
    return reordered({.grid = {.shape = {3, 5, 7}},
                      .orders = {AxisOrder::fhw, AxisOrder::whf, AxisOrder::fhw, AxisOrder::whf},
                      .mask = std::vector<uint8_t>(4, 1)});
}

struct Case {
    const char* name;
    Pattern pattern;
    int64_t batch, heads, kv_heads, q_len, kv_len, head_dim, extra_len;
    TileShape tile;
    uint32_t q_rows, columns;
    float scale = 0.25f, k_offset = 0;
};

const std::vector<Case>& cases() {
    static const std::vector<Case> list = {
        {"gqa_ragged", dense(), 2, 4, 2, 37, 150, 64, 0, {32, 32}, 16, 64},
        {"offset_extra", dense(), 1, 2, 1, 70, 97, 72, 21, {64, 32}, 32, 96, -0.5f, 30},
        {"order_by_head", two_orders(), 1, 4, 2, 105, 105, 128, 5, {16, 64}, 16, 128},
    };
    return list;
}

std::vector<int8_t> bytes_of(vk::Stream& stream, const Tensor& x) {
    std::vector<int8_t> bytes(static_cast<size_t>(x.numel()));
    stream.download(read(x), std::as_writable_bytes(std::span(bytes)));
    return bytes;
}

/// Tokens of a tensor's slots: `order`, or the tokens in turn, up to `slots`.
std::vector<uint32_t> tokens_of(const std::vector<uint32_t>& order, size_t slots) {
    std::vector<uint32_t> tokens = order;
    for (auto i = static_cast<uint32_t>(tokens.size()); i < slots; ++i)
        tokens.push_back(order.empty() ? i : BlockList::kNoToken);
    return tokens;
}

/// Rounding may go the other way where the mean differs in its last bits, rarely.
void expect_blocks(std::span<const int8_t> found, std::span<const float> found_scales,
                   const reference::Int8Blocks& expected, double factor = 1, int sign = 1) {
    ASSERT_EQ(found.size(), expected.values.size());
    size_t off = 0;
    for (size_t i = 0; i < found.size(); ++i) {
        ASSERT_LE(std::abs(found[i] - sign * expected.values[i]), 1) << "at " << i;
        off += found[i] != sign * expected.values[i];
    }
    EXPECT_LE(off, found.size() / 500 + 1);
    ASSERT_EQ(found_scales.size(), expected.scales.size());
    for (size_t i = 0; i < found_scales.size(); ++i) {
        EXPECT_NEAR(found_scales[i], expected.scales[i] * factor,
                    1e-4 * expected.scales[i] * factor + 1e-17)
            << "block " << i;
        EXPECT_GT(found_scales[i], 0) << "block " << i;  // of nothing but 0 too
    }
}

class Quantize : public ::testing::TestWithParam<size_t> {};

TEST_P(Quantize, EqualsReference) {
    const Case& c = cases()[GetParam()];
    const auto u = [](int64_t n) { return static_cast<uint32_t>(n); };
    vk::Stream stream(device());
    const Shape q_shape{c.batch, c.heads, c.q_len, c.head_dim},
        k_shape{c.batch, c.kv_heads, c.kv_len, c.head_dim},
        extra_shape{c.batch, c.kv_heads, c.extra_len, c.head_dim};
    const auto q = testing::random_values(testing::numel(q_shape), 1, DType::f16);
    auto k = testing::random_values(testing::numel(k_shape), 2, DType::f16);
    for (float& x : k) x = half_to_float(float_to_half(x + c.k_offset));
    const auto extra = testing::random_values(testing::numel(extra_shape), 3, DType::f16);
    const auto d = static_cast<size_t>(c.head_dim);

    const DeviceList list =
        device_list(stream, c.pattern, c.tile, u(c.q_len), u(c.kv_len), u(c.extra_len));
    const Plan lists = plan(c.pattern, c.tile, u(c.q_len), u(c.kv_len), u(c.extra_len));
    QuantizeOptions options{
        .tile = c.tile, .q_rows = c.q_rows, .columns = c.columns, .scale = c.scale, .shifts = true};
    if (c.extra_len > 0) options.k_extra = upload(stream, extra, extra_shape, DType::f16);
    const Tensor tq = upload(stream, q, q_shape, DType::f16),
                 tk = upload(stream, k, k_shape, DType::f16);
    const QuantizedScores found = quantize_scores(stream, tq, tk, list, options);
    const auto found_q = bytes_of(stream, found.q), found_k = bytes_of(stream, found.k);
    const auto q_slots = to_host(stream, found.q_slots), k_scales = to_host(stream, found.k_scales);

    const bool by_head = !lists.list_of_head.empty();
    const int64_t copies = by_head ? c.heads : c.kv_heads;
    ASSERT_EQ(found.k.shape(),
              (Shape{c.batch, copies, int64_t{found.k_tiles} * c.tile.k, int64_t{c.columns}}));
    const auto list_of = [&](int64_t h) -> const BlockList& {
        return lists.lists[by_head ? lists.list_of_head[static_cast<size_t>(h)] : 0];
    };
    const auto head_of = [&](const std::vector<float>& x, int64_t head, int64_t len) {
        return std::span(x).subspan(static_cast<size_t>(head * len) * d,
                                    static_cast<size_t>(len) * d);
    };
    for (int64_t b = 0; b < c.batch; ++b)
        for (int64_t copy = 0; copy < copies; ++copy) {
            SCOPED_TRACE(fmt::format("keys of batch {} copy {}", b, copy));
            const int64_t kv = b * c.kv_heads + copy / (copies / c.kv_heads);
            const auto keys = head_of(k, kv, c.kv_len);
            const auto mean = reference::mean_of_rows(keys, d);
            const BlockList& own = list_of(copy);
            const size_t slots = size_t{own.key_tiles()} * c.tile.k,
                         all = size_t{found.k_tiles} * c.tile.k;
            auto expected = reference::int8_blocks(keys, d, tokens_of(own.k_order, slots), c.tile.k,
                                                   c.columns, mean);
            const auto behind =
                reference::int8_blocks(head_of(extra, kv, c.extra_len), d,
                                       tokens_of({}, all - slots), c.tile.k, c.columns, mean);
            expected.values.insert(expected.values.end(), behind.values.begin(),
                                   behind.values.end());
            expected.scales.insert(expected.scales.end(), behind.scales.begin(),
                                   behind.scales.end());
            const auto at = static_cast<size_t>(b * copies + copy);
            expect_blocks(std::span(found_k).subspan(at * all * c.columns, all * c.columns),
                          std::span(k_scales).subspan(at * found.k_tiles, found.k_tiles), expected);
        }
    for (int64_t row = 0; row < c.batch * c.heads; ++row) {
        SCOPED_TRACE(fmt::format("queries of head {}", row));
        const auto queries = head_of(q, row, c.q_len);
        const int64_t kv = row / c.heads * c.kv_heads + row % c.heads / (c.heads / c.kv_heads);
        const auto mean = reference::mean_of_rows(head_of(k, kv, c.kv_len), d);
        const size_t slots = size_t{list.query_tiles} * c.tile.q;
        const auto tokens = tokens_of(list_of(row % c.heads).q_order, slots);
        const auto expected = reference::int8_blocks(queries, d, tokens, c.q_rows, c.columns);
        const auto of_slots = std::span(q_slots).subspan(static_cast<size_t>(row) * slots * 2);
        std::vector<float> scales;
        for (size_t slot = 0; slot < slots; slot += c.q_rows)
            scales.push_back(of_slots[2 * slot + 1]);
        expect_blocks(std::span(found_q).subspan(static_cast<size_t>(row) * slots * c.columns,
                                                 slots * c.columns),
                      scales, expected, std::abs(c.scale), c.scale < 0 ? -1 : 1);
        for (size_t slot = 0; slot < slots; ++slot) {
            double shift = 0;
            if (tokens[slot] < c.q_len)
                for (size_t i = 0; i < d; ++i)
                    shift += queries[tokens[slot] * d + i] * mean[i] * c.scale;
            EXPECT_NEAR(of_slots[2 * slot], shift, 1e-4 * (1 + std::abs(c.k_offset))) << slot;
            EXPECT_EQ(of_slots[2 * slot + 1], scales[slot / c.q_rows]);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Cases, Quantize, ::testing::Range(size_t{0}, cases().size()),
                         [](const auto& info) { return std::string(cases()[info.param].name); });

/// The rest of a block keeps its scale and its values.
TEST(QuantizeSpecial, WhatIsNotFiniteIsMarked) {
    constexpr uint32_t kTokens = 40, kDim = 64, kBad = 5;
    vk::Stream stream(device());
    const auto clean = testing::random_values(kTokens * kDim, 1, DType::f16);
    auto x = clean;
    x[kBad * kDim + 3] = std::numeric_limits<float>::infinity();
    x[kBad * kDim + 11] = std::numeric_limits<float>::quiet_NaN();
    const Tensor t = upload(stream, x, {1, 1, kTokens, kDim}, DType::f16);
    const DeviceList list = device_list(stream, dense(), {32, 32}, kTokens, kTokens);
    const auto found = quantize_scores(
        stream, t, t, list,
        {.tile = {32, 32}, .q_rows = 16, .columns = kDim, .scale = 1, .shifts = false});
    const auto q = bytes_of(stream, found.q), k = bytes_of(stream, found.k);
    const auto scales = to_host(stream, found.k_scales), slots = to_host(stream, found.q_slots);
    EXPECT_LT(scales[0], 0);
    EXPECT_GT(scales[1], 0);
    const std::span<const float> whole = clean;
    for (uint32_t slot = 0; slot < 32; ++slot) {
        EXPECT_EQ(std::isnan(slots[2 * slot]), slot == kBad) << slot;
        EXPECT_NEAR(slots[2 * slot + 1], slots[2 * (slot / 16 * 16) + 1], 0);
        for (uint32_t c = 0; c < kDim; ++c) {
            const bool bad = slot == kBad && c < 16;
            EXPECT_EQ(k[slot * kDim + c] == -128, bad) << slot << " " << c;
            if (bad)
                EXPECT_EQ(q[slot * kDim + c], 0);
            else
                EXPECT_NEAR(q[slot * kDim + c] * slots[2 * slot + 1], whole[slot * kDim + c],
                            0.51f * slots[2 * slot + 1]);
        }
    }
}

}  // namespace
}  // namespace fovea
