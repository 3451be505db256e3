#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "backend/ops/device_list.h"
#include "backend/ops/head_layout.h"
#include "backend/patterns/compact.h"
#include "backend/tensor.h"

/// Blocks of keys selected on the device from means of blocks, and the lists that attention walks:
/// what rectified and routed attention have in common.
namespace fovea {

/// What calls of one shape share.
struct BlockLayout {
    CompactBlocks blocks;
    Tensor order;       ///< (slots) i32
    Tensor touch;       ///< a bit a pair of blocks, rows of whole words
    Tensor tile_masks;  ///< (key tiles) i32
    Tensor words;       ///< of a list, up to the rows
    uint32_t q_tiles = 0, k_tiles = 0;
};

/// Kept on the device under `name`, a tile that divides the blocks, and the number of lists, one
/// for all heads of a sample or one each.
const BlockLayout& block_layout(vk::Stream& stream, const std::string& name,
                                const std::function<CompactBlocks()>& make, TileShape tile,
                                uint32_t lists);

struct PooledBlocks {
    Tensor means, spreads;  ///< (batch, heads, blocks and then singles, d) f32
};

/// Means over the blocks, then the `singles` tokens behind the grid as they are. x (batch, heads,
/// tokens, d) or with tokens first.
PooledBlocks pool_blocks(vk::Stream& stream, const Tensor& x, HeadLayout axes,
                         const BlockLayout& layout, uint32_t singles, bool with_spreads);

struct SelectionOptions {
    uint32_t batch, heads, kv_heads;  ///< of the pooled tensors; one head selects for all
    uint32_t d, v_dim;
    uint32_t least;  ///< blocks that a row keeps: those of the largest scores, equal ones together
    float mass;      ///< and the share of pooled attention that they are to exceed
    float scale;
    bool rectify = false;  ///< with spreads of q and k, and means of v: see rectified.h
};

struct BlockSelection {
    DeviceList list;
    Tensor kept;              ///< (batch, heads, blocks) i32: blocks of the grid that each sees
    Tensor factors, addends;  ///< where rectified
};

/// Blocks that touch (BlockLayout) are kept whatever their scores.
BlockSelection select_blocks(vk::Stream& stream, const BlockLayout& layout, const PooledBlocks& q,
                             const PooledBlocks& k, const PooledBlocks& v,
                             const SelectionOptions& options);

}  // namespace fovea
