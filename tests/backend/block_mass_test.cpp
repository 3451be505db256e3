#include "backend/ops/block_mass.h"

#include <gmock/gmock.h>

#include <numeric>

#include "backend/error.h"
#include "backend/patterns/disc.h"
#include "backend/patterns/planner.h"
#include "backend/patterns/reordered.h"
#include "backend/reference/block_mass.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;
using ::testing::HasSubstr;

/// No query of an odd row sees anything.
struct OddRowsBlind {
    uint32_t tokens;
    bool keeps(uint32_t q, uint32_t k) const { return q % 2 == 0 && (q + k) % 3 != 0; }
    Grid grid() const { return {.shape = {tokens}}; }
    std::string key() const { return "odd_rows_blind"; }
};

/// Heads differ.
struct ByHead {
    uint32_t tokens, modulus = 3;

    bool keeps(uint32_t q, uint32_t k) const { return (q * modulus + k) % 5 > 1; }
    Grid grid() const { return {.shape = {tokens}}; }
    std::string key() const { return fmt::format("by_head:{}", modulus); }
    uint32_t heads() const { return 3; }
    Pattern head(uint32_t h) const;
};

struct OneHead {
    ByHead rule;
    bool keeps(uint32_t q, uint32_t k) const { return rule.keeps(q, k); }
    Grid grid() const { return rule.grid(); }
    std::string key() const { return rule.key(); }
};

Pattern ByHead::head(uint32_t h) const {
    return OneHead{{tokens, h}};
}

/// Every pair, heads in three orders of a grid of 4×5×6 after 3 tokens of text.
Pattern reordered_dense() {
    return reordered({.grid = {{4, 5, 6}},
                      .orders = {AxisOrder::fhw, AxisOrder::whf, AxisOrder::hfw},
                      .text_tokens = 3,
                      .block_q = 128,
                      .block_k = 128,
                      .mask = {1}});
}

struct Case {
    const char* name;
    Pattern pattern;
    reference::AttentionShape shape;
    uint32_t block_q, block_k;
    float logits = 1;
};

const std::vector<Case>& cases() {
    const auto self = [](uint32_t heads, uint32_t tokens, uint32_t head_dim) {
        return reference::AttentionShape{.heads = heads,
                                         .kv_heads = heads,
                                         .q_len = tokens,
                                         .kv_len = tokens,
                                         .head_dim = head_dim};
    };
    static const std::vector<Case> list = {
        {"basic", dense(), self(2, 192, 64), 64, 64},
        {"ragged", dense(), self(2, 97, 64), 64, 32},
        {"one_block", dense(), self(1, 19, 64), 128, 128},
        {"one_token", dense(), self(2, 1, 8), 64, 64},
        {"blocks_of_one", dense(), self(1, 23, 8), 1, 1},
        {"blocks_of_three_and_five", dense(), self(1, 50, 8), 3, 5},
        {"blocks_of_17_and_100", dense(), self(1, 205, 8), 17, 100},
        {"many_blocks", dense(), self(1, 700, 8), 64, 16},
        {"cross_gqa_batch",
         dense(),
         {.batch = 2, .heads = 6, .kv_heads = 2, .q_len = 70, .kv_len = 33, .head_dim = 64},
         16,
         16},
        {"scale",
         dense(),
         {.heads = 1, .kv_heads = 1, .q_len = 40, .kv_len = 40, .head_dim = 64, .scale = 0.3f},
         16,
         16},
        {"large_logits", dense(), self(2, 80, 64), 16, 16, 100},
        {"head_dim_256", dense(), self(1, 40, 256), 16, 16},
        {"rows_without_keys", OddRowsBlind{45}, self(2, 45, 8), 16, 16},
        {"window", neighborhood({.shape = {9, 11}}, {.window = {3, 5}}), self(2, 99, 64), 32, 16},
        {"window_1d", neighborhood({.shape = {200}}, {.window = {9}}), self(1, 200, 8), 48, 33},
        {"heads_differ", ByHead{60}, self(3, 60, 8), 16, 24},
        {"reordered", reordered_dense(), self(3, 123, 8), 16, 24},
        {"disc", disc({.shape = {6, 7}}, 2.5, 5), self(2, 47, 8), 10, 32},
    };
    return list;
}

/// The sequences that the planner cuts into blocks, a head each, and the number of blocks.
struct Blocks {
    std::vector<reference::Sequences> sequences;
    int64_t rows, columns;
};

Blocks blocks_of(const Case& c) {
    const Plan lists = plan(c.pattern, {c.block_q, c.block_k}, c.shape.q_len, c.shape.kv_len);
    Blocks result{{}, lists.lists[0].query_tiles(), lists.lists[0].key_tiles()};
    for (uint32_t h = 0; h < c.shape.heads; ++h) {
        const auto& list = lists.lists[lists.list_of_head.empty() ? 0 : lists.list_of_head[h]];
        result.sequences.push_back({list.q_order, list.k_order});
    }
    return result;
}

class BlockMass : public ::testing::TestWithParam<std::tuple<size_t, DType>> {};

TEST_P(BlockMass, AgreesWithReference) {
    const auto [index, dtype] = GetParam();
    const Case& c = cases()[index];
    const auto& s = c.shape;
    const int64_t b = s.batch, h = s.heads, hkv = s.kv_heads, nq = s.q_len, nk = s.kv_len,
                  d = s.head_dim;
    vk::Stream stream(device());
    const auto q = testing::input(stream, {b, h, nq, d}, 1, dtype, c.logits);
    const auto k = testing::input(stream, {b, hkv, nk, d}, 2, dtype);
    const Blocks blocks = blocks_of(c);
    const auto expected =
        reference::block_mass(q.host, k.host, c.pattern, s, c.block_q, c.block_k, blocks.sequences);
    const Shape shape{b, h, blocks.rows, blocks.columns};
    testing::poison(stream, shape, DType::f32);
    const Tensor found = block_mass(stream, q.device, k.device, c.pattern,
                                    {.block_q = c.block_q, .block_k = c.block_k, .scale = s.scale});
    EXPECT_EQ(found.shape(), shape);
    // Large logits: exp(score − lse) of numbers in the hundreds.
    const float relative = c.logits > 1 ? 2e-4f : 2e-5f;
    EXPECT_TRUE(close(to_host(stream, found), expected, {2e-6f, relative}));
}

INSTANTIATE_TEST_SUITE_P(Cases, BlockMass,
                         ::testing::Combine(::testing::Range(size_t{0}, cases().size()),
                                            ::testing::ValuesIn(testing::kStorage)),
                         [](const auto& info) {
                             return std::string(cases()[std::get<0>(info.param)].name) + "_" +
                                    name_of(std::get<1>(info.param));
                         });

TEST(BlockMassMap, RowsSumToOneAndTheSameBitsComeTwice) {
    vk::Stream stream(device());
    const auto q = testing::input(stream, {1, 2, 333, 64}, 1, DType::f32, 3);
    const auto k = testing::input(stream, {1, 1, 250, 64}, 2, DType::f32, 3);
    const auto map = [&] {
        return to_host(stream, block_mass(stream, q.device, k.device, dense()));
    };
    const auto first = map();
    ASSERT_EQ(first.size(), 2u * 6 * 4);
    for (size_t row = 0; row < 12; ++row)
        EXPECT_NEAR(std::accumulate(first.begin() + row * 4, first.begin() + row * 4 + 4, 0.0), 1,
                    1e-5);
    EXPECT_EQ(map(), first);
    const Tensor lse = attention_lse(stream, q.device, k.device, dense());
    EXPECT_EQ(to_host(stream, block_mass(stream, q.device, k.device, dense(), {.lse = lse})),
              first);
    EXPECT_THROW(block_mass(stream, q.device, k.device, dense(), {.lse = lse.slice(0, 1).index(0)}),
                 Error);
}

// Block (i, j) of a head with an order is that of the map whose rows and columns are in this order:
// the sequences are made here, not by the planner.
TEST(BlockMassMap, BlocksAreThoseOfTheReorderedSequence) {
    vk::Stream stream(device());
    const auto q = testing::input(stream, {1, 3, 123, 8}, 1, DType::f32, 3);
    const auto k = testing::input(stream, {1, 3, 123, 8}, 2, DType::f32, 3);
    std::vector<reference::Sequences> sequences;
    for (const AxisOrder order : {AxisOrder::fhw, AxisOrder::whf, AxisOrder::hfw}) {
        const auto tokens = reordered_tokens({{4, 5, 6}}, order, 3);
        sequences.push_back({tokens, tokens});
    }
    const auto expected = reference::block_mass(
        q.host, k.host, dense(),
        {.heads = 3, .kv_heads = 3, .q_len = 123, .kv_len = 123, .head_dim = 8}, 16, 32, sequences);
    EXPECT_TRUE(close(to_host(stream, block_mass(stream, q.device, k.device, reordered_dense(),
                                                 {.block_q = 16, .block_k = 32})),
                      expected, {2e-6f, 2e-5f}));
}

// What no query sees may be anything.
TEST(BlockMassMap, UnseenKeysDoNotLeak) {
    vk::Stream stream(device());
    constexpr int64_t n = 50;
    const Pattern causal = neighborhood({.shape = {n}}, {.window = {n}, .causal = {true}});
    auto q = testing::random_values(n * 8, 1), k = testing::random_values(n * 8, 2);
    const auto map = [&](int64_t rows) {  // the first blocks of queries
        auto all = to_host(stream, block_mass(stream, upload(stream, q, {1, 1, n, 8}, DType::f32),
                                              upload(stream, k, {1, 1, n, 8}, DType::f32), causal,
                                              {.block_q = 10, .block_k = 10}));
        all.resize(static_cast<size_t>(rows * 5));
        return all;
    };
    const auto expected = map(4);
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(), -3e38f}) {
        std::fill(k.begin() + 40 * 8, k.end(), bad);
        EXPECT_EQ(map(4), expected) << bad;
    }
}

TEST(BlockMassMap, ClearErrors) {
    vk::Stream stream(device());
    const Tensor x = empty(device(), {1, 1, 8, 8}, DType::f32);
    const auto refused = [&](BlockMassOptions options, Pattern pattern = dense()) -> std::string {
        try {
            block_mass(stream, x, x, pattern, options);
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_EQ(refused({}), "");
    EXPECT_THAT(refused({.block_q = 0}), HasSubstr("found 0×64"));
    EXPECT_THAT(refused({.block_k = 0}), HasSubstr("found 64×0"));
    EXPECT_THAT(refused({}, neighborhood({.shape = {9}}, {.window = {3}})), HasSubstr("9 tokens"));
}

}  // namespace
}  // namespace fovea
