#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/patterns/pattern.h"

/// What the attention kernels walk instead of a pattern: for every tile of queries the tiles of
/// keys it sees, each full or partial with a bit mask. The ragged last tile of keys is a partial
/// block like any other, so kernels have no border case. Windows repeat by translation: identical
/// masks are stored once, and so are identical lists (dense has one).
namespace fovea {

/// Queries × keys of one block.
struct TileShape {
    uint32_t q = 64, k = 64;
    auto operator<=>(const TileShape&) const = default;
};

struct BlockList {
    static constexpr uint32_t kFull = 0xffffffff;

    struct Block {
        uint32_t key_tile;  ///< tiles of extra keys are numbered after those of the keys
        uint32_t mask;      ///< kFull, or number of a mask
        bool operator==(const Block&) const = default;
    };
    struct Row {
        uint32_t first, count;  ///< into blocks
    };

    TileShape tile;
    uint32_t q_len = 0, kv_len = 0, extra_len = 0;
    std::vector<Row> rows;  ///< one a query tile
    std::vector<Block> blocks;
    std::vector<uint32_t>
        masks;                ///< tile.q × mask_words() each; bit j % 32 of word j / 32 is key j
    uint64_t kept_pairs = 0;  ///< (query, key), extra keys included

    uint32_t mask_words() const { return (tile.k + 31) / 32; }
    uint32_t query_tiles() const { return static_cast<uint32_t>(rows.size()); }
    uint32_t key_tiles() const { return (kv_len + tile.k - 1) / tile.k; }
    uint32_t extra_tiles() const { return (extra_len + tile.k - 1) / tile.k; }
    uint64_t visited_blocks() const;
    /// Share of all blocks that are visited, and share of all (query, key) pairs that are kept.
    double visited_share() const;
    double kept_share() const;
    std::span<const Block> row(uint32_t query_tile) const;
    bool bit(const Block& block, uint32_t q, uint32_t k) const;  ///< inside the block
};

/// `extra_len` keys follow that every query sees.
BlockList block_list(const Pattern& pattern, TileShape tile, uint32_t q_len, uint32_t kv_len,
                     uint32_t extra_len = 0);

}  // namespace fovea
