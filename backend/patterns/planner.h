#pragma once

#include <vector>

#include "backend/patterns/block_list.h"
#include "backend/patterns/pattern.h"

/// From a pattern to block lists, on the CPU's threads.
namespace fovea {

/// The list of one head (a pattern whose heads differ: of head 0). `extra_len` keys follow that
/// every query sees.
BlockList block_list(const Pattern& pattern, TileShape tile, uint32_t q_len, uint32_t kv_len,
                     uint32_t extra_len = 0);

/// What one call of attention walks: one list for every distinct head.
struct Plan {
    std::vector<BlockList> lists;
    std::vector<uint32_t> list_of_head;  ///< empty: lists[0] serves every head
};

Plan plan(const Pattern& pattern, TileShape tile, uint32_t q_len, uint32_t kv_len,
          uint32_t extra_len = 0);

}  // namespace fovea
