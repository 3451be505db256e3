#include "backend/ops/block_selection.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <tuple>

#include "backend/ops/dispatch.h"
#include "backend/patterns/list_maker.h"
#include "shaders.h"
#include "shaders/attention/list_params.h"
#include "shaders/attention/select_params.h"

namespace fovea {
namespace {

constexpr uint32_t kMostBlocks = 4096;  ///< of the grid: 32 KiB of shared memory

struct LayoutCache {
    static constexpr size_t kMost = 16;
    using Key = std::tuple<std::string, TileShape, uint32_t>;
    std::map<Key, BlockLayout> layouts;
};

Tensor upload_words(vk::Stream& stream, std::span<const uint32_t> words) {
    const std::span<const int32_t> view(reinterpret_cast<const int32_t*>(words.data()),
                                        words.size());
    return upload(stream, view, {std::ssize(words)});
}

/// Each tile's mask: FULL where it holds tokens only, else a number of the list's masks, or EMPTY.
std::vector<uint32_t> masks_of_tiles(BlockList& list, const std::vector<uint32_t>& order) {
    ListMaker maker(list);
    std::vector<uint32_t> numbers, mask(size_t{list.tile.q} * list.mask_words());
    for (size_t first = 0; first < order.size(); first += list.tile.k) {
        const auto slots = std::span(order).subspan(first, list.tile.k);
        const auto tokens = static_cast<uint32_t>(
            std::find(slots.begin(), slots.end(), BlockList::kNoToken) - slots.begin());
        std::fill(mask.begin(), mask.end(), 0);
        for (uint32_t row = 0; row < list.tile.q; ++row)
            set_bits(std::span(mask).subspan(size_t{row} * list.mask_words()), {0, tokens});
        numbers.push_back(tokens == list.tile.k ? BlockList::kFull
                          : tokens == 0         ? shared::TILE_EMPTY
                                                : maker.mask(mask));
    }
    return numbers;
}

BlockLayout make_layout(vk::Stream& stream, CompactBlocks blocks, TileShape tile, uint32_t lists) {
    BlockLayout layout{.blocks = std::move(blocks)};
    const CompactBlocks& b = layout.blocks;
    const auto slots = static_cast<uint32_t>(b.order.size());
    layout.q_tiles = slots / tile.q;
    layout.k_tiles = slots / tile.k;
    layout.order = upload_words(stream, b.order);
    const uint32_t n = b.blocks(), row_words = (n + 31) / 32;
    std::vector<uint32_t> touch(size_t{n} * row_words);
    for (uint32_t i = 0; i < n; ++i)
        for (uint32_t j = 0; j < n; ++j)
            if (b.touch[size_t{i} * n + j]) touch[size_t{i} * row_words + j / 32] |= 1u << (j % 32);
    layout.touch = upload_words(stream, touch);
    BlockList list{.tile = tile};
    layout.tile_masks = upload_words(stream, masks_of_tiles(list, b.order));

    // Headers, masks, order; behind them rows and blocks, which the device writes.
    const uint32_t masks_at = lists * shared::LIST_HEADER;
    const uint32_t order_at = masks_at + u32(std::ssize(list.masks)), rows_at = order_at + slots;
    const uint32_t blocks_at = rows_at + 2 * lists * layout.q_tiles;
    std::vector<uint32_t> words(masks_at);
    for (uint32_t i = 0; i < lists; ++i) {
        uint32_t* header = &words[size_t{i} * shared::LIST_HEADER];
        header[shared::LIST_ROWS] = rows_at + 2 * i * layout.q_tiles;
        header[shared::LIST_BLOCKS] = blocks_at + 2 * i * n * layout.k_tiles;
        header[shared::LIST_MASKS] = masks_at;
        header[shared::LIST_Q_ORDER] = header[shared::LIST_K_ORDER] = order_at;
        header[shared::LIST_KEY_TILES] = layout.k_tiles;
    }
    words.insert(words.end(), list.masks.begin(), list.masks.end());
    words.insert(words.end(), b.order.begin(), b.order.end());
    layout.words = upload_words(stream, words);
    return layout;
}

}  // namespace

const BlockLayout& block_layout(vk::Stream& stream, const std::string& name,
                                const std::function<CompactBlocks()>& make, TileShape tile,
                                uint32_t lists) {
    auto& layouts = stream.device().cache<LayoutCache>().layouts;
    const LayoutCache::Key key{name, tile, lists};
    if (const auto found = layouts.find(key); found != layouts.end()) return found->second;
    if (layouts.size() >= LayoutCache::kMost) layouts.clear();
    const BlockLayout& layout =
        layouts.emplace(key, make_layout(stream, make(), tile, lists)).first->second;
    stream.submit();  // the cache may outlive the stream
    return layout;
}

PooledBlocks pool_blocks(vk::Stream& stream, const Tensor& x, HeadLayout axes,
                         const BlockLayout& layout, uint32_t singles, bool with_spreads) {
    const bool tokens_first = axes == HeadLayout::tokens_first;
    const int64_t heads = x.dim(tokens_first ? 2 : 1), tokens = x.dim(tokens_first ? 1 : 2);
    const int64_t d = x.dim(3), pitch = tokens_first ? x.pitch(heads * d) : d;
    const uint32_t blocks = layout.blocks.grid_blocks;
    const Shape shape{x.dim(0), heads, blocks + singles, d};
    PooledBlocks pooled{empty(stream.device(), shape, DType::f32),
                        with_spreads ? empty(stream.device(), shape, DType::f32) : Tensor()};
    const shared::PoolParams params{
        .count = count_of("rectified", pooled.means) / 4,
        .d4 = u32(d / 4),
        .heads = u32(heads),
        .entries = blocks + singles,
        .blocks = blocks,
        .block = layout.blocks.block,
        .sample_pitch = u32((tokens_first ? tokens * pitch : heads * tokens * d) / 4),
        .head_pitch = u32((tokens_first ? d : tokens * d) / 4),
        .token_pitch = u32(pitch / 4)};
    const auto& shader =
        by_dtype("rectified", x.dtype(), shader::pool_blocks_f32, shader::pool_blocks_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup, with_spreads}),
                    {write(pooled.means), write(pooled.spreads), read_view(x), read(layout.order)},
                    params, groups_for(params.count, kElementGroup), "pool_blocks");
    return pooled;
}

BlockSelection select_blocks(vk::Stream& stream, const BlockLayout& layout, const PooledBlocks& q,
                             const PooledBlocks& k, const PooledBlocks& v,
                             const SelectionOptions& o) {
    const CompactBlocks& b = layout.blocks;
    const uint32_t blocks = b.blocks();
    require(b.grid_blocks <= kMostBlocks,
            "[block_selection] at most {} blocks expected, found {}: take larger ones", kMostBlocks,
            b.grid_blocks);
    vk::Device& device = stream.device();
    const int64_t fixed = layout.words.numel(), lists = int64_t{o.batch} * o.heads,
                  rows = 2 * lists * layout.q_tiles,
                  room = 2 * lists * blocks * int64_t{layout.k_tiles};
    const uint64_t bytes = 4 * static_cast<uint64_t>(fixed + rows + room);
    require(bytes <= device.info().limits.storage_buffer_range,
            "[block_selection] a list of {} bytes for {} blocks in {} heads, the device allows {}: "
            "take "
            "larger blocks",
            bytes, blocks, lists, device.info().limits.storage_buffer_range);
    const Tensor list = empty(device, {fixed + rows + room}, DType::i32);
    stream.copy(read(layout.words), write(list.slice(0, fixed)));

    BlockSelection selection;
    if (o.rectify) {
        selection.factors = empty(device, {o.batch, o.heads, blocks}, DType::f32);
        selection.addends = empty(device, {o.batch, o.heads, blocks, o.v_dim}, DType::f32);
    }
    selection.kept = empty(device, {o.batch, o.heads, blocks}, DType::i32);
    const shared::SelectParams params{.grid_blocks = b.grid_blocks,
                                      .text_blocks = b.text_blocks,
                                      .grid_tokens = b.grid_tokens,
                                      .text_tokens = b.text_tokens,
                                      .block = b.block,
                                      .heads = o.heads,
                                      .kv_heads = o.kv_heads,
                                      .d4 = o.d / 4,
                                      .dv4 = o.v_dim / 4,
                                      .q_tiles = layout.q_tiles,
                                      .k_tiles = layout.k_tiles,
                                      .rows_at = u32(fixed),
                                      .blocks_at = u32(fixed + rows),
                                      .least = std::clamp(o.least, 1u, b.grid_blocks),
                                      .mass = o.mass,
                                      .scale = o.scale,
                                      .rectify = o.rectify};
    // On CPUs a barrier costs what its invocations are many.
    const uint32_t lanes = is_cpu(stream) ? device.info().limits.subgroup_size : 64;
    stream.dispatch(
        device.program(shader::select_blocks, {lanes, std::max(64u, std::bit_ceil(b.grid_blocks))}),
        {read_write(list), write(selection.factors), write(selection.addends),
         write(selection.kept), read(q.means), read(q.spreads), read(k.means), read(k.spreads),
         read(v.means), read(layout.touch), read(layout.tile_masks)},
        params, {blocks, o.heads, o.batch}, "select_blocks");
    selection.list = {.words = list,
                      .list_words = o.heads == 1 ? 0 : shared::LIST_HEADER,
                      .sample_words = o.heads * shared::LIST_HEADER,
                      .query_tiles = layout.q_tiles,
                      .longest_row = layout.k_tiles,
                      .ordered = true,
                      .key_tiles = layout.k_tiles,
                      .most_key_tiles = layout.k_tiles};
    return selection;
}

}  // namespace fovea
