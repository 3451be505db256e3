#include "backend/patterns/planner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <set>

#include "backend/error.h"
#include "backend/patterns/dense.h"
#include "backend/patterns/neighborhood.h"

namespace fovea {
namespace {

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

void expect_equals_keeps(const Pattern& pattern, TileShape tile, uint32_t q_len, uint32_t kv_len,
                         uint32_t extra_len) {
    SCOPED_TRACE(pattern.key() + " tile " + std::to_string(tile.q) + "x" + std::to_string(tile.k));
    const BlockList list = block_list(pattern, tile, q_len, kv_len, extra_len);
    ASSERT_EQ(list.query_tiles(), (q_len + tile.q - 1) / tile.q);
    uint64_t kept = 0;
    for (uint32_t t = 0; t < list.query_tiles(); ++t) {
        std::vector<const BlockList::Block*> block_of(list.key_tiles() + list.extra_tiles());
        for (const auto& block : list.row(t)) {
            ASSERT_LT(block.key_tile, block_of.size());
            ASSERT_EQ(block_of[block.key_tile], nullptr) << "listed twice";
            block_of[block.key_tile] = &block;
        }
        for (uint32_t r = 0; r < tile.q && t * tile.q + r < q_len; ++r) {
            for (uint32_t kt = 0; kt < block_of.size(); ++kt) {
                for (uint32_t c = 0; c < tile.k; ++c) {
                    const bool extra = kt >= list.key_tiles();
                    const uint32_t k = (extra ? kt - list.key_tiles() : kt) * tile.k + c;
                    const bool expected =
                        extra ? k < extra_len : k < kv_len && pattern.keeps(t * tile.q + r, k);
                    const bool found = block_of[kt] && list.bit(*block_of[kt], r, c);
                    ASSERT_EQ(found, expected) << "query " << t * tile.q + r << " key " << k;
                    kept += found;
                }
            }
        }
    }
    EXPECT_EQ(list.kept_pairs, kept);
    EXPECT_NEAR(list.kept_share(), double(kept) / q_len / (kv_len + extra_len), 1e-12);

    std::set<std::vector<uint32_t>> masks;  // stored once, none of them without a bit
    const size_t size = tile.q * list.mask_words();
    for (size_t i = 0; i < list.masks.size(); i += size) {
        const auto at = list.masks.begin() + static_cast<int64_t>(i);
        const std::vector<uint32_t> mask(at, at + static_cast<int64_t>(size));
        EXPECT_NE(std::count(mask.begin(), mask.end(), 0u), static_cast<int64_t>(size));
        EXPECT_TRUE(masks.insert(mask).second);
    }
}

TEST(BlockList, EqualsKeepsElementByElement) {
    const Grid line{.shape = {97}}, plane{.shape = {9, 13}}, space{.shape = {3, 5, 7}};
    for (const TileShape tile : {TileShape{16, 16}, {64, 64}, {8, 40}, {7, 5}, {64, 32}}) {
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

TEST(BlockList, BlockedAttentionNeedsNoMask) {
    const BlockList list =
        block_list(neighborhood({.shape = {32, 64}}, {.window = {8, 64}, .stride = {8, 64}}),
                   {64, 64}, 2048, 2048);
    EXPECT_TRUE(list.masks.empty());
    EXPECT_EQ(list.visited_share(), 0.25);
}

TEST(BlockList, RefusesEmptyLengthsAndTiles) {
    EXPECT_THROW(block_list(dense(), {64, 64}, 0, 1), Error);
    EXPECT_THROW(block_list(dense(), {0, 64}, 1, 1), Error);
}

TEST(BlockList, HundredThousandTokensTakeSeconds) {
    const std::clock_t begin = std::clock();  // processor time: the machine may be busy
    const BlockList list = block_list(
        neighborhood({.shape = {30, 48, 80}}, {.window = {15, 25, 25}}), {64, 64}, 115200, 115200);
    const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    printf("%.2f s, %.1f %% of the blocks, %.1f %% of the pairs, %zu masks\n", seconds,
           100 * list.visited_share(), 100 * list.kept_share(), list.masks.size() / 128);
    EXPECT_NEAR(list.kept_share(), 15 * 25 * 25 / 115200.0, 1e-9);
    EXPECT_LT(seconds, 20);  // by keeps() of all pairs: minutes
}

}  // namespace
}  // namespace fovea
