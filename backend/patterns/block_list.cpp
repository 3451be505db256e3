#include "backend/patterns/block_list.h"

namespace fovea {

uint64_t BlockList::visited_blocks() const {
    uint64_t count = 0;
    for (const Row& row : rows) count += row.count;
    return count;
}

uint64_t BlockList::full_blocks() const {
    uint64_t count = 0;
    for (uint32_t t = 0; t < query_tiles(); ++t)
        for (const Block& block : row(t)) count += block.mask == kFull;
    return count;
}

double BlockList::visited_share() const {
    const auto all = double{1} * query_tiles() * (key_tiles() + extra_tiles());
    return static_cast<double>(visited_blocks()) / all;
}

double BlockList::kept_share() const {
    return static_cast<double>(kept_pairs) / q_len / (double{1} * kv_len + extra_len);
}

std::span<const BlockList::Block> BlockList::row(uint32_t query_tile) const {
    return std::span(blocks).subspan(rows[query_tile].first, rows[query_tile].count);
}

bool BlockList::bit(const Block& block, uint32_t q, uint32_t k) const {
    if (block.mask == kFull) return true;
    const uint64_t word = (uint64_t{block.mask} * tile.q + q) * mask_words() + k / 32;
    return masks[word] >> (k % 32) & 1;
}

uint64_t BlockList::bytes() const {
    return 8 * (rows.size() + blocks.size()) + 4 * (masks.size() + q_order.size() + k_order.size());
}

}  // namespace fovea
