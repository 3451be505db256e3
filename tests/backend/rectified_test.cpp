#include "backend/ops/rectified.h"

#include <gmock/gmock.h>

#include <numeric>

#include "backend/error.h"
#include "backend/ops/permute.h"
#include "backend/reference/rectified.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;
using ::testing::HasSubstr;

struct Case {
    const char* name;
    std::vector<uint32_t> grid;
    uint32_t text, block;
    float keep, mass;
    bool rectify = true;
    uint32_t batch = 1, heads = 2, kv_heads = 2, head_dim = 16;
    HeadLayout layout = HeadLayout::heads_first;
};

const std::vector<Case>& cases() {
    static const std::vector<Case> list = {
        {"cubes", {4, 8, 8}, 0, 16, 0.25f, 0.3f},
        {"least_only", {4, 8, 8}, 0, 16, 0.5f, 0},
        {"mass_only", {4, 8, 8}, 0, 16, 0, 0.8f},
        {"left_out", {4, 8, 8}, 0, 16, 0.25f, 0.3f, false},
        {"ragged_with_text", {3, 5, 7}, 21, 16, 0.2f, 0.4f},
        {"text_in_whole_blocks", {2, 8, 8}, 32, 32, 0.2f, 0.4f},
        {"batch_gqa", {2, 8, 8}, 5, 16, 0.2f, 0.3f, true, 2, 4, 2},
        {"tokens_first", {2, 8, 8}, 3, 16, 0.2f, 0.3f, true, 2, 4, 2, 16, HeadLayout::tokens_first},
        {"one_block", {2, 2, 2}, 0, 16, 0.2f, 0.3f},
        {"everything", {2, 8, 8}, 0, 16, 1, 0},
    };
    return list;
}

/// Neighbours are alike, as in a picture: maps have structure, and means say something of tokens.
std::vector<float> smooth(std::vector<float> x, const Case& c, int64_t heads, uint32_t seed) {
    const CompactBlocks blocks = compact_blocks(Grid{c.grid}, 8);
    const int64_t tokens = blocks.grid_tokens + c.text, d = c.head_dim;
    const auto common = testing::random_values(
        static_cast<size_t>(c.batch * heads * blocks.grid_blocks * d), seed + 100);
    for (int64_t h = 0; h < c.batch * heads; ++h)
        for (uint32_t slot = 0; slot < blocks.grid_tokens; ++slot)
            for (int64_t i = 0; i < d; ++i) {
                float& value = x[(h * tokens + blocks.order[slot]) * d + i];
                value = 0.3f * value + common[(h * blocks.grid_blocks + slot / 8) * d + i];
                value = half_to_float(float_to_half(value));
            }
    return x;
}

struct Inputs {
    std::vector<float> q, k, v;
};

Inputs inputs(const Case& c, DType dtype) {
    const int64_t tokens = static_cast<int64_t>(Grid{c.grid}.tokens()) + c.text;
    const auto make = [&](uint32_t heads, uint32_t seed) {
        const auto count = static_cast<size_t>(c.batch * heads * tokens * c.head_dim);
        return smooth(testing::random_values(count, seed, dtype), c, heads, seed);
    };
    return {make(c.heads, 1), make(c.kv_heads, 2), make(c.kv_heads, 3)};
}

void expect_reference(const Case& c, DType dtype, AttentionPath path) {
    const CompactBlocks blocks = compact_blocks(Grid{c.grid}, c.block, c.text);
    const uint32_t tokens = blocks.grid_tokens + c.text;
    const Inputs in = inputs(c, dtype);
    const auto expected = reference::rectified(in.q, in.k, in.v, blocks,
                                               {.batch = c.batch,
                                                .heads = c.heads,
                                                .kv_heads = c.kv_heads,
                                                .q_len = tokens,
                                                .kv_len = tokens,
                                                .head_dim = c.head_dim},
                                               c.keep, c.mass, c.rectify);
    vk::Stream stream(device());
    const bool tokens_first = c.layout == HeadLayout::tokens_first;
    const auto up = [&](const std::vector<float>& x, int64_t heads) {
        const Tensor own = upload(stream, x, {c.batch, heads, tokens, c.head_dim}, dtype);
        return tokens_first ? permute(stream, own, {0, 2, 1, 3}) : own;
    };
    const Tensor q = up(in.q, c.heads), k = up(in.k, c.kv_heads), v = up(in.v, c.kv_heads);
    Tensor kept;
    RectifiedOptions options{.grid = {c.grid},
                             .text_tokens = c.text,
                             .block = c.block,
                             .keep = c.keep,
                             .mass = c.mass,
                             .rectify = c.rectify,
                             .kept = &kept};
    testing::poison(stream, q.shape(), dtype);
    Tensor o = rectified_attention(stream, q, k, v, options, {.path = path, .layout = c.layout});
    if (tokens_first) o = permute(stream, o, {0, 2, 1, 3});
    EXPECT_TRUE(close(to_host(stream, o), expected.o, testing::tolerance(dtype)));

    const uint32_t n = blocks.blocks();
    ASSERT_EQ(kept.shape(), (Shape{c.batch, c.heads, n}));
    std::vector<int32_t> counts(static_cast<size_t>(kept.numel()));
    stream.download(read(kept), std::as_writable_bytes(std::span(counts)));
    for (size_t row = 0; row < counts.size(); ++row) {
        const auto* seen = &expected.seen[row * n];
        EXPECT_EQ(counts[row], std::accumulate(seen, seen + blocks.grid_blocks, 0)) << row;
    }
}

class RectifiedAttention : public ::testing::TestWithParam<std::tuple<size_t, DType>> {};

TEST_P(RectifiedAttention, AgreesWithReference) {
    const auto [index, dtype] = GetParam();
    expect_reference(cases()[index], dtype, AttentionPath::scalar);
}

INSTANTIATE_TEST_SUITE_P(Cases, RectifiedAttention,
                         ::testing::Combine(::testing::Range(size_t{0}, cases().size()),
                                            ::testing::Values(DType::f32)),
                         [](const auto& info) {
                             return std::string(cases()[std::get<0>(info.param)].name) + "_" +
                                    name_of(std::get<1>(info.param));
                         });
INSTANTIATE_TEST_SUITE_P(Half, RectifiedAttention,
                         ::testing::Combine(::testing::Values(size_t{7}),
                                            ::testing::Values(DType::f16)));

TEST(RectifiedAttentionPaths, AgreesWithReferenceOnMatrixUnits) {
    const testing::Environment emulate("FOVEA_EMULATE_MATRICES", "1");
    const Case c{"matrices", {3, 5, 14}, 21, 64, 0.2f, 0.4f, true, 2, 4, 2, 64};
    for (const AttentionPath path : {AttentionPath::khr, AttentionPath::nv2}) {
        SCOPED_TRACE(name_of(path));
        expect_reference(c, DType::f16, path);
    }
}

// Where the tokens of a block are alike its mean stands for it.
TEST(RectifiedAttentionMore, CompensationHelpsAndTheSameBitsComeTwice) {
    constexpr int64_t kTokens = 256, kDim = 16;
    const CompactBlocks blocks = compact_blocks({{4, 8, 8}}, 16);
    vk::Stream stream(device());
    const auto alike = [&](uint32_t seed) {
        auto x = testing::random_values(kTokens * kDim, seed, DType::f32, 0.02f);
        const auto common = testing::random_values(blocks.grid_blocks * kDim, seed + 10);
        for (size_t slot = 0; slot < blocks.order.size(); ++slot)
            for (size_t c = 0; c < kDim; ++c)
                x[blocks.order[slot] * kDim + c] += common[slot / 16 * kDim + c];
        return upload(stream, x, {1, 1, kTokens, kDim}, DType::f32);
    };
    const Tensor q = alike(1), k = alike(2), v = alike(3);
    RectifiedOptions options{.grid = {{4, 8, 8}}, .block = 16, .keep = 0.25f, .mass = 0};
    const auto run = [&] { return to_host(stream, rectified_attention(stream, q, k, v, options)); };
    const auto rectified = run();
    EXPECT_EQ(run(), rectified);
    options.rectify = false;
    const auto plain = run(), exact = to_host(stream, attention(stream, q, k, v, dense()));
    const auto distance = [&](const std::vector<float>& x) {
        double sum = 0;
        for (size_t i = 0; i < x.size(); ++i) sum += std::pow(x[i] - exact[i], 2);
        return std::sqrt(sum);
    };
    EXPECT_LT(distance(rectified), 0.2 * distance(plain));
}

TEST(RectifiedAttentionMore, ClearErrors) {
    vk::Stream stream(device());
    const Tensor x = empty(device(), {1, 1, 64, 8}, DType::f32);
    const auto refused = [&](RectifiedOptions options, AttentionOptions more = {}) -> std::string {
        try {
            rectified_attention(stream, x, x, x, options, more);
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    };
    const Grid grid{{4, 4, 4}};
    EXPECT_EQ(refused({.grid = grid, .block = 16}), "");
    EXPECT_THAT(refused({.grid = grid, .text_tokens = 1, .block = 16}), HasSubstr("65 tokens"));
    EXPECT_THAT(refused({.grid = grid, .block = 24}), HasSubstr("multiple of the kernel's tiles"));
    EXPECT_THAT(refused({.grid = grid, .block = 16, .mass = 1}), HasSubstr("less than 1"));
    EXPECT_THAT(refused({.grid = grid, .block = 16}, {.k_extra = x, .v_extra = x}),
                HasSubstr("extra keys"));
}

TEST(CompactBlocks, AreBoxesThatTouchWhereTheyAreNeighbours) {
    const CompactBlocks b = compact_blocks({{4, 4, 8}}, 16, 5);
    ASSERT_EQ(b.grid_blocks, 8u);
    ASSERT_EQ(b.text_blocks, 1u);
    // 128 tokens: halved along the third axis, the first and the second: boxes of 2 × 2 × 4.
    for (uint32_t block = 0; block < b.grid_blocks; ++block) {
        std::array<std::vector<uint32_t>, 3> at;
        for (uint32_t slot = block * 16; slot < block * 16 + 16; ++slot) {
            const uint32_t token = b.order[slot];
            at[0].push_back(token / 32);
            at[1].push_back(token / 8 % 4);
            at[2].push_back(token % 8);
        }
        std::vector<uint32_t> extents;
        for (auto& values : at)
            extents.push_back(*std::max_element(values.begin(), values.end()) + 1 -
                              *std::min_element(values.begin(), values.end()));
        EXPECT_THAT(extents, ::testing::ElementsAre(2, 2, 4)) << block;
        // Two halves along each axis: itself, three neighbours, and text.
        EXPECT_EQ(std::accumulate(b.touch.begin() + block * 9, b.touch.begin() + block * 9 + 9, 0),
                  5)
            << block;
    }
    EXPECT_EQ(b.order[128], 128u);
    EXPECT_EQ(b.order[133], BlockList::kNoToken);
}

TEST(CompactBlocks, OrderHasEveryTokenOnce) {
    for (const std::vector<uint32_t>& shape :
         {std::vector<uint32_t>{7}, {5, 9}, {3, 6, 11}, {1, 1, 1}}) {
        auto order = compact_order(Grid{shape});
        std::sort(order.begin(), order.end());
        std::vector<uint32_t> all(Grid{shape}.tokens());
        std::iota(all.begin(), all.end(), 0);
        EXPECT_EQ(order, all);
    }
}

}  // namespace
}  // namespace fovea
