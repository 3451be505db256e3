#pragma once

#include <memory>

#include "backend/patterns/block_mask.h"

/// Block-sparse attention: any mask over blocks of queries × keys, for all heads or one a head, of
/// any lengths that have as many blocks (the last of a side may be ragged); cross attention too.
namespace fovea {

struct BlockSparseOptions {
    uint32_t heads = 1;  ///< 1: one mask for all heads, whatever their number
    uint32_t q_blocks = 0, k_blocks = 0;
    uint32_t block_q = 64, block_k = 64;  ///< tokens
    std::vector<uint8_t> mask;            // (heads, q_blocks, k_blocks), 0: not seen
};

/// The same as lists, one a block of queries: the blocks of keys it sees, in any order.
struct BlockSparseLists {
    uint32_t heads = 1;
    uint32_t q_blocks = 0, k_blocks = 0;
    uint32_t block_q = 64, block_k = 64;
    std::vector<std::vector<uint32_t>> key_blocks;  // (heads, q_blocks)
};

class BlockSparse {
  public:
    explicit BlockSparse(BlockMask mask) : BlockSparse(std::vector{std::move(mask)}) {}
    explicit BlockSparse(std::vector<BlockMask> heads);

    bool keeps(uint32_t q, uint32_t k) const { return block_mask().keeps(q, k); }
    Grid grid() const { return {}; }
    std::string key() const;
    uint32_t heads() const { return heads_.size() == 1 ? 0 : static_cast<uint32_t>(heads_.size()); }
    BlockSparse head(uint32_t h) const { return BlockSparse(one_head("block_sparse", heads_, h)); }
    Cover cover(TokenRange queries, TokenRange keys) const {
        return block_mask().cover(queries, keys);
    }
    TileShape granularity() const { return block_mask().block; }
    /// Throws Error unless the lengths have as many blocks as the mask.
    void accepts(uint32_t q_len, uint32_t kv_len) const;
    const BlockMask& block_mask() const { return *heads_[0].mask; }  ///< of head 0

  private:
    struct Head {
        std::shared_ptr<const BlockMask> mask;
        std::string digest;
    };
    explicit BlockSparse(std::vector<Head> heads) : heads_(std::move(heads)) {}

    std::vector<Head> heads_;
};

/// Throw Error where sizes do not fit.
BlockSparse block_sparse(const BlockSparseOptions& options);
BlockSparse block_sparse(const BlockSparseLists& lists);

}  // namespace fovea
