#pragma once

#include <span>
#include <unordered_map>

#include "backend/patterns/block_list.h"
#include "backend/patterns/pattern.h"

namespace fovea {

/// Sets the bits of a range of a mask's row.
void set_bits(std::span<uint32_t> words, TokenRange range);

/// Appends rows to a block list; equal masks and equal rows are stored once.
class ListMaker {
  public:
    explicit ListMaker(BlockList& list);  ///< knows the masks already there, not the rows

    /// Number of this mask of tile.q × mask_words() words.
    uint32_t mask(std::span<const uint32_t> words);
    void row(std::span<const BlockList::Block> blocks);

  private:
    BlockList& list_;
    const size_t mask_size_;
    std::unordered_multimap<uint64_t, uint32_t> masks_;
    std::unordered_multimap<uint64_t, BlockList::Row> rows_;
};

}  // namespace fovea
