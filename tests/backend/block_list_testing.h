#pragma once
/// Shared by the tests of block lists: every bit against the pattern's own rule.

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "backend/patterns/planner.h"

namespace fovea::testing {

constexpr TileShape kTiles[] = {{16, 16}, {64, 64}, {128, 64}, {8, 40}, {7, 5}, {64, 32}};

/// Every bit of the list against keeps(), wherever the order puts the tokens.
inline void expect_equals_keeps(const BlockList& list, const Pattern& pattern, TileShape tile,
                                uint32_t q_len, uint32_t kv_len, uint32_t extra_len) {
    SCOPED_TRACE(pattern.key() + " tile " + std::to_string(tile.q) + "x" + std::to_string(tile.k));
    ASSERT_EQ(list.tile, tile);
    ASSERT_EQ(list.q_order.empty(), list.k_order.empty());
    ASSERT_EQ(list.extra_len, extra_len);
    if (!list.q_order.empty()) {
        ASSERT_EQ(list.q_order.size(), size_t{list.query_tiles()} * tile.q);
        ASSERT_EQ(list.k_order.size() % tile.k, 0u);
        for (const auto& [order, length] :
             {std::pair{&list.q_order, q_len}, {&list.k_order, kv_len}}) {
            std::vector<int> slots_of(length);
            for (const uint32_t token : *order)
                if (token != BlockList::kNoToken) ++slots_of.at(token);
            ASSERT_EQ(std::count(slots_of.begin(), slots_of.end(), 1), int64_t{length});
        }
    } else {
        ASSERT_EQ(list.query_tiles(), (q_len + tile.q - 1) / tile.q);
    }
    const auto token_of = [](const std::vector<uint32_t>& order, uint32_t slot, uint32_t length) {
        if (!order.empty()) return order[slot];
        return slot < length ? slot : BlockList::kNoToken;
    };

    uint64_t kept = 0;
    for (uint32_t t = 0; t < list.query_tiles(); ++t) {
        std::vector<const BlockList::Block*> block_of(list.key_tiles() + list.extra_tiles());
        for (const auto& block : list.row(t)) {
            ASSERT_LT(block.key_tile, block_of.size());
            ASSERT_EQ(block_of[block.key_tile], nullptr) << "listed twice";
            ASSERT_TRUE(&block == &list.row(t)[0] || (&block)[-1].key_tile < block.key_tile);
            block_of[block.key_tile] = &block;
        }
        for (uint32_t r = 0; r < tile.q; ++r) {
            const uint32_t q = token_of(list.q_order, t * tile.q + r, q_len);
            if (q == BlockList::kNoToken) continue;  // any bits
            for (uint32_t kt = 0; kt < block_of.size(); ++kt) {
                for (uint32_t c = 0; c < tile.k; ++c) {
                    const bool extra = kt >= list.key_tiles();
                    const uint32_t slot = (extra ? kt - list.key_tiles() : kt) * tile.k + c;
                    const uint32_t k = extra ? slot : token_of(list.k_order, slot, kv_len);
                    const bool expected =
                        extra ? k < extra_len : k != BlockList::kNoToken && pattern.keeps(q, k);
                    const bool found = block_of[kt] && list.bit(*block_of[kt], r, c);
                    ASSERT_EQ(found, expected) << "query " << q << " key " << k;
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

inline void expect_equals_keeps(const Pattern& pattern, TileShape tile, uint32_t q_len,
                                uint32_t kv_len, uint32_t extra_len) {
    expect_equals_keeps(block_list(pattern, tile, q_len, kv_len, extra_len), pattern, tile, q_len,
                        kv_len, extra_len);
}

}  // namespace fovea::testing
