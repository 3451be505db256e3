#include "backend/ops/routed.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "backend/error.h"
#include "backend/ops/attention_lists.h"
#include "backend/ops/block_selection.h"

namespace fovea {
namespace {

/// Slots of a region: its tokens row by row, filled up to whole tiles.
CompactBlocks region_blocks(const RoutedOptions& o, uint32_t slots) {
    const uint32_t height = o.rows / o.region_rows, width = o.columns / o.region_columns;
    CompactBlocks b{.block = slots, .grid_blocks = o.region_rows * o.region_columns};
    for (uint32_t region = 0; region < b.grid_blocks; ++region) {
        const uint32_t top = region / o.region_columns * height;
        const uint32_t left = region % o.region_columns * width;
        for (uint32_t i = 0; i < slots; ++i)
            b.order.push_back(i < height * width ? (top + i / width) * o.columns + left + i % width
                                                 : BlockList::kNoToken);
    }
    b.grid_tokens = b.grid_blocks * slots;  // all weigh the same
    b.touch.resize(size_t{b.grid_blocks} * b.grid_blocks);
    return b;
}

}  // namespace

Tensor routed_attention(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                        const RoutedOptions& o, AttentionPath path) {
    require(q && k && v && q.rank() == 4 && k.rank() == 4 && v.rank() == 4,
            "[routed] q, k and v of four axes must be there");
    require(o.region_rows > 0 && o.region_columns > 0 && o.rows > 0 && o.columns > 0 &&
                o.rows % o.region_rows == 0 && o.columns % o.region_columns == 0,
            "[routed] a grid of {}×{} tokens does not fall into {}×{} regions", o.rows, o.columns,
            o.region_rows, o.region_columns);
    const int64_t tokens = int64_t{o.rows} * o.columns, width = q.dim(2) * q.dim(3);
    require(q.dim(1) == tokens && k.shape() == q.shape(),
            "[routed] q and k of {} tokens and one shape expected, found {} and {}", tokens,
            to_string(q.shape()), to_string(k.shape()));
    const uint32_t regions = o.region_rows * o.region_columns;
    require(o.keep >= 1 && o.keep <= regions, "[routed] 1 to {} regions to keep expected, found {}",
            regions, o.keep);
    const auto region_tokens = static_cast<uint32_t>(tokens / regions);
    const float scale = o.scale != 0 ? o.scale : 1 / std::sqrt(static_cast<float>(width));
    const auto batch = static_cast<uint32_t>(q.dim(0));
    BlockSelection selection;
    const auto make = [&](vk::Stream& own, TileShape tile) {
        const uint32_t whole = std::lcm(tile.q, tile.k);
        const uint32_t slots = (region_tokens + whole - 1) / whole * whole;
        const BlockLayout& layout = block_layout(
            own,
            fmt::format("regions {}x{} of {}x{} {}", o.region_rows, o.region_columns, o.rows,
                        o.columns, slots),
            [&] { return region_blocks(o, slots); }, tile, batch);
        const auto pool = [&](const Tensor& x) {  // all heads as one
            return pool_blocks(own, x.reshape({x.dim(0), tokens, 1, width}),
                               HeadLayout::tokens_first, layout, 0, false);
        };
        selection = select_blocks(own, layout, pool(q), pool(k), {},
                                  {.batch = batch,
                                   .heads = 1,
                                   .kv_heads = 1,
                                   .d = static_cast<uint32_t>(width),
                                   .v_dim = static_cast<uint32_t>(v.dim(3)),
                                   .least = o.keep,
                                   .mass = -1,
                                   .scale = scale});
        return selection.list;
    };
    const uint32_t near = std::bit_ceil(std::min(region_tokens, 64u));
    const Tensor result =
        attention_over(stream, q, k, v, {{near, near}, make},
                       {.scale = scale, .path = path, .layout = HeadLayout::tokens_first});
    if (o.kept) *o.kept = selection.kept;
    return result;
}

}  // namespace fovea
