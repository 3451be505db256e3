#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

/// What the attention kernels walk instead of a pattern: for every tile of queries the tiles of
/// keys it sees, each full or partial with a bit mask. The ragged last tile of keys is a partial
/// block like any other, so kernels have no border case. Windows repeat by translation: identical
/// masks are stored once, and so are identical lists (dense has one).
///
/// Tiles cut sequences of slots. An order says which token a slot holds, so that a tile can be a
/// box of a 2-D or 3-D grid, or a stretch of a reordered sequence: kernels gather and scatter rows
/// by it, and no permutation has a pass of its own.
namespace fovea {

/// Queries × keys of one block.
struct TileShape {
    uint32_t q = 64, k = 64;
    auto operator<=>(const TileShape&) const = default;
};

/// Extents of a tile of queries and of one of keys, in tokens an axis, outermost first.
struct Boxes {
    std::array<uint32_t, 3> q{1, 1, 1}, k{1, 1, 1};
    auto operator<=>(const Boxes&) const = default;
};

/// What a list in these boxes is like.
struct BoxCost {
    Boxes boxes;
    uint64_t query_tiles = 0, key_tiles = 0;
    uint64_t visited = 0, full = 0;  ///< blocks
};

struct BlockList {
    static constexpr uint32_t kFull = 0xffffffff;
    static constexpr uint32_t kNoToken = 0xffffffff;

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
    /// Token of each slot, whole tiles long; kNoToken where a tile sticks out. Empty: slot i holds
    /// token i. Extra keys are not among them.
    std::vector<uint32_t> q_order, k_order;
    std::vector<Row> rows;  ///< one a query tile
    std::vector<Block> blocks;
    std::vector<uint32_t>
        masks;                ///< tile.q × mask_words() each; bit j % 32 of word j / 32 is key j
    uint64_t kept_pairs = 0;  ///< (query, key), extra keys included

    uint32_t mask_words() const { return (tile.k + 31) / 32; }
    uint32_t query_tiles() const { return static_cast<uint32_t>(rows.size()); }
    uint32_t key_tiles() const {
        return k_order.empty() ? (kv_len + tile.k - 1) / tile.k
                               : static_cast<uint32_t>(k_order.size() / tile.k);
    }
    uint32_t extra_tiles() const { return (extra_len + tile.k - 1) / tile.k; }
    uint64_t visited_blocks() const;
    uint64_t full_blocks() const;
    /// Share of all blocks that are visited, and share of all (query, key) pairs that are kept.
    double visited_share() const;
    double kept_share() const;
    std::span<const Block> row(uint32_t query_tile) const;
    bool bit(const Block& block, uint32_t q, uint32_t k) const;  ///< inside the block, by slots
    uint64_t bytes() const;  ///< of everything above: what the device holds too
};

}  // namespace fovea
