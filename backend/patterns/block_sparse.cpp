#include "backend/patterns/block_sparse.h"

#include <fmt/ranges.h>

#include "backend/error.h"
#include "backend/patterns/sizes.h"

namespace fovea {
namespace {

void check_sizes(uint32_t heads, uint32_t q_blocks, uint32_t k_blocks, TileShape block) {
    require(heads >= 1 && q_blocks >= 1 && k_blocks >= 1 && block.q >= 1 && block.k >= 1,
            "[block_sparse] heads, q_blocks, k_blocks, block_q and block_k must be at least 1, "
            "found {}, {}, {}, {} and {}",
            heads, q_blocks, k_blocks, block.q, block.k);
}

}  // namespace

BlockSparse::BlockSparse(std::vector<BlockMask> heads) {
    for (BlockMask& mask : heads) {
        std::string own = digest(mask);
        heads_.push_back({std::make_shared<BlockMask>(std::move(mask)), std::move(own)});
    }
}

std::string BlockSparse::key() const {
    const BlockMask& m = block_mask();
    std::vector<std::string> digests;
    for (const Head& head : heads_) digests.push_back(head.digest);
    return fmt::format("block_sparse:{}x{} of {}x{}:{}", m.rows, m.cols, m.block.q, m.block.k,
                       fmt::join(digests, ","));
}

void BlockSparse::accepts(uint32_t q_len, uint32_t kv_len) const {
    const BlockMask& m = block_mask();
    require(div_up(q_len, m.block.q) == m.rows && div_up(kv_len, m.block.k) == m.cols,
            "[block_sparse] a mask of {}×{} blocks of {}×{} found, expected {}×{} blocks for {} "
            "queries and {} keys",
            m.rows, m.cols, m.block.q, m.block.k, div_up(q_len, m.block.q),
            div_up(kv_len, m.block.k), q_len, kv_len);
}

BlockSparse block_sparse(const BlockSparseOptions& o) {
    const TileShape block{o.block_q, o.block_k};
    check_sizes(o.heads, o.q_blocks, o.k_blocks, block);
    const size_t size = size_t{o.q_blocks} * o.k_blocks;
    require(o.mask.size() == o.heads * size,
            "[block_sparse] a mask of (heads, q_blocks, k_blocks) = ({}, {}, {}) needs {} values, "
            "found {}",
            o.heads, o.q_blocks, o.k_blocks, o.heads * size, o.mask.size());
    std::vector<BlockMask> heads;
    for (uint32_t h = 0; h < o.heads; ++h) {
        BlockMask mask{.block = block, .rows = o.q_blocks, .cols = o.k_blocks};
        for (size_t i = 0; i < size; ++i) mask.visible.push_back(o.mask[h * size + i] != 0);
        heads.push_back(std::move(mask));
    }
    return BlockSparse(std::move(heads));
}

BlockSparse block_sparse(const BlockSparseLists& o) {
    const TileShape block{o.block_q, o.block_k};
    check_sizes(o.heads, o.q_blocks, o.k_blocks, block);
    require(o.key_blocks.size() == size_t{o.heads} * o.q_blocks,
            "[block_sparse] heads × q_blocks = {} × {} lists expected, found {}", o.heads,
            o.q_blocks, o.key_blocks.size());
    std::vector<BlockMask> heads;
    for (uint32_t h = 0; h < o.heads; ++h) {
        BlockMask mask{.block = block, .rows = o.q_blocks, .cols = o.k_blocks};
        mask.visible.resize(size_t{o.q_blocks} * o.k_blocks);
        for (uint32_t r = 0; r < o.q_blocks; ++r)
            for (const uint32_t c : o.key_blocks[size_t{h} * o.q_blocks + r]) {
                require(c < o.k_blocks,
                        "[block_sparse] block of keys {} found in the list of head {}, block of "
                        "queries {}; there are {}",
                        c, h, r, o.k_blocks);
                mask.visible[size_t{r} * o.k_blocks + c] = 1;
            }
        heads.push_back(std::move(mask));
    }
    return BlockSparse(std::move(heads));
}

}  // namespace fovea
