#pragma once

#include <cstdint>
#include <vector>

#include "backend/patterns/block_list.h"
#include "backend/patterns/pattern.h"

/// A grid cut into blocks of near tokens, for masks that are selected at run time: the order of
/// tokens of which blocks are stretches, and which blocks touch.
namespace fovea {

/// Token of each slot: the grid is halved along its longest axis (the first of equals) at the
/// largest power of two below its extent, and so on down to single tokens. Stretches of 2ⁿ tokens
/// are boxes near to cubes where extents are powers of two, and compact elsewhere: what Jenga and
/// Rectified SpaAttn lay out along a Hilbert curve.
std::vector<uint32_t> compact_order(const Grid& grid);

/// The blocks of a grid and of text tokens behind it, which have blocks of their own.
struct CompactBlocks {
    uint32_t block = 0;  ///< slots
    uint32_t grid_tokens = 0, text_tokens = 0;
    uint32_t grid_blocks = 0, text_blocks = 0;
    std::vector<uint32_t> order;  ///< token of each slot, kNoToken where a last block is short
    /// (blocks, blocks): a token of the one is next to one of the other along an axis, they are the
    /// same block, or one is of text.
    std::vector<uint8_t> touch;

    uint32_t blocks() const { return grid_blocks + text_blocks; }
};

/// Throws Error where sizes do not fit.
CompactBlocks compact_blocks(const Grid& grid, uint32_t block, uint32_t text_tokens = 0);

}  // namespace fovea
