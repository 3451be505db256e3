#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "backend/error.h"
#include "backend/patterns/block_sparse.h"
#include "backend/patterns/dense.h"
#include "backend/patterns/disc.h"
#include "backend/patterns/identity.h"
#include "backend/patterns/neighborhood.h"
#include "backend/patterns/planner.h"
#include "backend/patterns/radial.h"
#include "backend/patterns/reordered.h"
#include "tests/backend/block_list_testing.h"

namespace fovea {
namespace {

using testing::expect_equals_keeps;

/// A pattern of a user: keeps() alone.
struct Triples {
    bool keeps(uint32_t q, uint32_t k) const { return (q + 2 * k) % 3 == 0 && q % 5 != 0; }
    Grid grid() const { return {}; }
    std::string key() const { return "triples"; }
};

/// One with cover(): keys of the same fourth of the tokens.
struct Quarters {
    uint32_t tokens;
    uint32_t quarter(uint32_t t) const { return t * 4 / tokens; }
    bool keeps(uint32_t q, uint32_t k) const { return quarter(q) == quarter(k); }
    Grid grid() const { return {.shape = {tokens}}; }
    std::string key() const { return "quarters"; }
    Cover cover(TokenRange q, TokenRange k) const {
        const uint32_t q0 = quarter(q.begin), q1 = quarter(q.end - 1);
        const uint32_t k0 = quarter(k.begin), k1 = quarter(k.end - 1);
        if (q1 < k0 || k1 < q0) return Cover::none;
        return q0 == q1 && k0 == k1 && q0 == k0 ? Cover::full : Cover::partial;
    }
};

std::vector<uint8_t> random_mask(size_t size, uint32_t seed) {
    std::mt19937 generator(seed);
    std::vector<uint8_t> mask(size);
    for (uint8_t& value : mask) value = generator() % 3 == 0;
    return mask;
}

TEST(BlockList, EqualsKeepsOfMasksAndOrders) {
    const ReorderedOptions order{.grid = {.shape = {3, 5, 7}},
                                 .orders = {AxisOrder::whf, AxisOrder::hfw},
                                 .text_tokens = 9,
                                 .block_q = 16,
                                 .block_k = 32,
                                 .mask = random_mask(2 * 8 * 4, 3)};
    for (const TileShape tile : testing::kTiles) {
        for (const uint32_t extra : {0u, 70u}) {
            for (const uint32_t block : {16u, 48u, 64u}) {
                const uint32_t rows = (150 + block - 1) / block, cols = (131 + block - 1) / block;
                const Pattern sparse = block_sparse({.heads = 2,
                                                     .q_blocks = rows,
                                                     .k_blocks = cols,
                                                     .block_q = block,
                                                     .block_k = block,
                                                     .mask = random_mask(2 * rows * cols, block)});
                expect_equals_keeps(sparse, tile, 150, 131, extra);
                expect_equals_keeps(sparse.head(1), tile, 150, 131, extra);
                expect_equals_keeps(radial({.frames = 5,
                                            .tokens_per_frame = 37,
                                            .tokens = 201,
                                            .block = block,
                                            .decay = 0.3}),
                                    tile, 201, 201, extra);
            }
            expect_equals_keeps(reordered(order), tile, 114, 114, extra);
            expect_equals_keeps(Pattern(reordered(order)).head(1), tile, 114, 114, extra);
        }
    }
}

TEST(BlockList, EqualsKeepsOfDiscsAndIdentity) {
    for (const TileShape tile : testing::kTiles) {
        for (const uint32_t extra : {0u, 70u}) {
            for (const uint32_t text : {0u, 1u, 21u}) {
                expect_equals_keeps(disc({.shape = {11, 17}}, 3.5, text), tile, 187 + text,
                                    187 + text, extra);
                expect_equals_keeps(disc({.shape = {4, 40}}, 9, text), tile, 160 + text, 160 + text,
                                    extra);
                for (const uint32_t before : {0u, 64u, 70u})
                    expect_equals_keeps(
                        identity({.tokens = 129, .text_before = before, .text_after = text}), tile,
                        129 + text + before, 129 + text + before, extra);
            }
        }
    }
}

TEST(BlockList, TilesThatDivideTheBlocksNeedNoMasks) {
    const Pattern pattern = block_sparse(
        {.q_blocks = 8, .k_blocks = 8, .block_q = 64, .block_k = 64, .mask = random_mask(64, 1)});
    EXPECT_TRUE(block_list(pattern, {64, 64}, 512, 512).masks.empty());
    EXPECT_TRUE(block_list(pattern, {32, 16}, 512, 512).masks.empty());
    EXPECT_FALSE(block_list(pattern, {128, 64}, 512, 512).masks.empty());
}

TEST(BlockList, ErrorsOfUsersRulesArriveFromTheThreads) {
    struct Throws {
        bool keeps(uint32_t q, uint32_t) const { return q < 500 ? true : throw Error("enough"); }
        Grid grid() const { return {}; }
        std::string key() const { return "throws"; }
    };
    EXPECT_THROW(block_list(Throws{}, {1, 16}, 1000, 100), Error);
}

TEST(Plan, EqualHeadsShareAList) {
    const Pattern pattern =
        block_sparse({.heads = 4, .q_blocks = 1, .k_blocks = 2, .mask = {0, 1, 1, 1, 0, 1, 1, 0}});
    const Plan heads = plan(pattern, {64, 64}, 64, 128);
    EXPECT_EQ(heads.lists.size(), 3u);
    EXPECT_EQ(heads.list_of_head, (std::vector<uint32_t>{0, 1, 0, 2}));
    EXPECT_EQ(heads.lists[2].row(0)[0].key_tile, 0u);
    const Plan all = plan(dense(), {64, 64}, 64, 128);
    EXPECT_EQ(all.lists.size(), 1u);
    EXPECT_TRUE(all.list_of_head.empty());
}

TEST(Plan, RefusesLengthsThatDoNotFit) {
    const Pattern pattern = block_sparse({.q_blocks = 1, .k_blocks = 2, .mask = {0, 1}});
    EXPECT_THROW(plan(pattern, {64, 64}, 64, 129), Error);
    EXPECT_THROW(plan(disc({.shape = {4, 4}}, 2), {64, 64}, 16, 17), Error);
}

TEST(BlockList, EqualsKeepsElementByElement) {
    const Grid line{.shape = {97}}, plane{.shape = {9, 13}}, space{.shape = {3, 5, 7}};
    for (const TileShape tile : testing::kTiles) {
        for (const uint32_t extra : {0u, 1u, 70u}) {
            expect_equals_keeps(dense(), tile, 33, 70, extra);
            expect_equals_keeps(dense(), tile, 64, 64, extra);
            expect_equals_keeps(dense(), tile, 1, 1, extra);
            expect_equals_keeps(Triples{}, tile, 50, 61, extra);
            expect_equals_keeps(Quarters{130}, tile, 130, 130, extra);
            expect_equals_keeps(neighborhood(line, {.window = {13}}), tile, 97, 97, extra);
            expect_equals_keeps(neighborhood(line, {.window = {8}, .dilation = {5}}), tile, 97, 97,
                                extra);
            expect_equals_keeps(neighborhood(plane, {.window = {4, 5}, .stride = {2, 3}}), tile,
                                117, 117, extra);
            expect_equals_keeps(
                neighborhood(space, {.window = {2, 5, 3}, .causal = {true, false, false}}), tile,
                105, 105, extra);
        }
    }
}

TEST(BlockList, DenseIsOneListOfFullBlocks) {
    const BlockList list = block_list(dense(), {64, 64}, 4096, 4096);
    EXPECT_EQ(list.blocks.size(), 64u);
    EXPECT_TRUE(list.masks.empty());
    EXPECT_EQ(list.visited_share(), 1.0);
    EXPECT_EQ(list.kept_share(), 1.0);
}

TEST(BlockList, RefusesEmptyLengthsAndTiles) {
    EXPECT_THROW(block_list(dense(), {64, 64}, 0, 1), Error);
    EXPECT_THROW(block_list(dense(), {0, 64}, 1, 1), Error);
}

}  // namespace
}  // namespace fovea
