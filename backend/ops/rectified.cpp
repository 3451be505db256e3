#include "backend/ops/rectified.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <tuple>

#include "backend/ops/attention_lists.h"
#include "backend/ops/dispatch.h"
#include "backend/ops/rescale.h"
#include "backend/patterns/compact.h"
#include "backend/patterns/list_maker.h"
#include "shaders.h"
#include "shaders/attention/list_params.h"
#include "shaders/attention/select_params.h"

namespace fovea {
namespace {

constexpr uint32_t kMostBlocks = 4096;  ///< of the grid: 32 KiB of shared memory

uint32_t u(int64_t n) {
    return static_cast<uint32_t>(n);
}

/// What a call has in common with all of its shape.
struct Layout {
    CompactBlocks blocks;
    Tensor order;       ///< (slots) i32
    Tensor touch;       ///< a bit a pair of blocks, rows of whole words
    Tensor tile_masks;  ///< (key tiles) i32
    Tensor words;       ///< of a list, up to the rows
    uint32_t q_tiles = 0, k_tiles = 0;
};

struct LayoutCache {
    static constexpr size_t kMost = 16;
    using Key = std::tuple<std::vector<uint32_t>, uint32_t, uint32_t, TileShape, uint32_t>;
    std::map<Key, Layout> layouts;
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

Layout make_layout(vk::Stream& stream, const RectifiedOptions& o, TileShape tile, uint32_t lists) {
    Layout layout{.blocks = compact_blocks(o.grid, o.block, o.text_tokens)};
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
    const uint32_t order_at = masks_at + u(std::ssize(list.masks)), rows_at = order_at + slots;
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

const Layout& layout_of(vk::Stream& stream, const RectifiedOptions& o, TileShape tile,
                        uint32_t lists) {
    auto& layouts = stream.device().cache<LayoutCache>().layouts;
    const LayoutCache::Key key{o.grid.shape, o.text_tokens, o.block, tile, lists};
    if (const auto found = layouts.find(key); found != layouts.end()) return found->second;
    if (layouts.size() >= LayoutCache::kMost) layouts.clear();
    const Layout& layout = layouts.emplace(key, make_layout(stream, o, tile, lists)).first->second;
    stream.submit();  // the cache may outlive the stream
    return layout;
}

/// Of x (batch, heads, tokens, d) or with tokens first.
struct Pooled {
    Tensor means, spreads;  ///< (batch, heads, blocks and then singles, d) f32
};

Pooled pool(vk::Stream& stream, const Tensor& x, HeadLayout axes, const Layout& layout,
            uint32_t singles, bool with_spreads) {
    const bool tokens_first = axes == HeadLayout::tokens_first;
    const int64_t heads = x.dim(tokens_first ? 2 : 1), tokens = x.dim(tokens_first ? 1 : 2);
    const int64_t d = x.dim(3), pitch = tokens_first ? x.pitch(heads * d) : d;
    const uint32_t blocks = layout.blocks.grid_blocks;
    const Shape shape{x.dim(0), heads, blocks + singles, d};
    Pooled pooled{empty(stream.device(), shape, DType::f32),
                  with_spreads ? empty(stream.device(), shape, DType::f32) : Tensor()};
    const shared::PoolParams params{
        .count = count_of("rectified", pooled.means) / 4,
        .d4 = u(d / 4),
        .heads = u(heads),
        .entries = blocks + singles,
        .blocks = blocks,
        .block = layout.blocks.block,
        .sample_pitch = u((tokens_first ? tokens * pitch : heads * tokens * d) / 4),
        .head_pitch = u((tokens_first ? d : tokens * d) / 4),
        .token_pitch = u(pitch / 4)};
    const auto& shader =
        by_dtype("rectified", x.dtype(), shader::pool_blocks_f32, shader::pool_blocks_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup, with_spreads}),
                    {write(pooled.means), write(pooled.spreads), read_view(x), read(layout.order)},
                    params, groups_for(params.count, kElementGroup), "pool_blocks");
    return pooled;
}

struct Selection {
    Tensor kept, factors, addends;
    Tensor order;
};

struct Sizes {
    uint32_t batch, heads, kv_heads, d, v_dim;
};

DeviceList select(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                  const RectifiedOptions& o, const AttentionOptions& options, const Sizes& s,
                  TileShape tile, Selection& selection) {
    require(o.block % tile.q == 0 && o.block % tile.k == 0,
            "[rectified] blocks of {} tokens found, expected a multiple of the kernel's tiles of "
            "{}×{}",
            o.block, tile.q, tile.k);
    const Layout& layout = layout_of(stream, o, tile, s.batch * s.heads);
    const CompactBlocks& b = layout.blocks;
    const uint32_t blocks = b.blocks();
    require(b.grid_blocks <= kMostBlocks,
            "[rectified] at most {} blocks expected, found {}: take larger ones", kMostBlocks,
            b.grid_blocks);
    vk::Device& device = stream.device();
    const int64_t fixed = layout.words.numel(), lists = int64_t{s.batch} * s.heads,
                  rows = 2 * lists * layout.q_tiles,
                  room = 2 * lists * blocks * int64_t{layout.k_tiles};
    const uint64_t bytes = 4 * static_cast<uint64_t>(fixed + rows + room);
    require(bytes <= device.info().limits.storage_buffer_range,
            "[rectified] a list of {} bytes for {} blocks in {} heads, the device allows {}: take "
            "larger blocks",
            bytes, blocks, lists, device.info().limits.storage_buffer_range);
    const Tensor list = empty(device, {fixed + rows + room}, DType::i32);
    stream.copy(read(layout.words), write(list.slice(0, fixed)));

    const Pooled q_pool = pool(stream, q, options.layout, layout, 0, o.rectify),
                 k_pool = pool(stream, k, options.layout, layout, b.text_tokens, o.rectify);
    Pooled v_pool;
    if (o.rectify) {
        v_pool = pool(stream, v, options.layout, layout, 0, false);
        selection.factors = empty(device, {s.batch, s.heads, blocks}, DType::f32);
        selection.addends = empty(device, {s.batch, s.heads, blocks, s.v_dim}, DType::f32);
    }
    selection.kept = empty(device, {s.batch, s.heads, blocks}, DType::i32);
    selection.order = layout.order;
    const float share = std::ceil(o.keep * static_cast<float>(b.grid_blocks) - 1e-3f);
    const shared::SelectParams params{
        .grid_blocks = b.grid_blocks,
        .text_blocks = b.text_blocks,
        .grid_tokens = b.grid_tokens,
        .text_tokens = b.text_tokens,
        .block = o.block,
        .heads = s.heads,
        .kv_heads = s.kv_heads,
        .d4 = s.d / 4,
        .dv4 = s.v_dim / 4,
        .q_tiles = layout.q_tiles,
        .k_tiles = layout.k_tiles,
        .rows_at = u(fixed),
        .blocks_at = u(fixed + rows),
        .least = std::clamp(static_cast<uint32_t>(share), 1u, b.grid_blocks),
        .mass = o.mass,
        .scale = options.scale != 0 ? options.scale : 1 / std::sqrt(static_cast<float>(s.d)),
        .rectify = o.rectify};
    // On CPUs a barrier costs what its invocations are many.
    const uint32_t lanes = is_cpu(stream) ? device.info().limits.subgroup_size : 64;
    stream.dispatch(
        device.program(shader::select_blocks, {lanes, std::max(64u, std::bit_ceil(b.grid_blocks))}),
        {read_write(list), write(selection.factors), write(selection.addends),
         write(selection.kept), read(q_pool.means), read(q_pool.spreads), read(k_pool.means),
         read(k_pool.spreads), read(v_pool.means), read(layout.touch), read(layout.tile_masks)},
        params, {blocks, s.heads, s.batch}, "select_blocks");
    return {.words = list,
            .list_words = shared::LIST_HEADER,
            .sample_words = s.heads * shared::LIST_HEADER,
            .query_tiles = layout.q_tiles,
            .longest_row = layout.k_tiles,
            .ordered = true,
            .key_tiles = layout.k_tiles,
            .most_key_tiles = layout.k_tiles};
}

}  // namespace

Tensor rectified_attention(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                           const RectifiedOptions& o, const AttentionOptions& options) {
    require(q && k && v && q.rank() == 4 && k.rank() == 4 && v.rank() == 4,
            "[rectified] q, k and v of four axes must be there");
    require(!options.k_extra && !options.perturb && !options.bias && !options.relative_bias &&
                !options.key_weights && !options.multipliers &&
                options.scores == ScorePrecision::stored,
            "[rectified] extra keys, perturb, int8 scores or options that change logits found: the "
            "selection knows none of them");
    require(o.keep >= 0 && o.keep <= 1 && o.mass >= 0 && o.mass < 1 && o.block >= 1,
            "[rectified] keep of 0 to 1, mass of 0 to less than 1 and a block of at least 1 "
            "expected, found {}, {} and {}",
            o.keep, o.mass, o.block);
    const bool tokens_first = options.layout == HeadLayout::tokens_first;
    const uint64_t tokens = o.grid.tokens() + o.text_tokens;
    for (const Tensor& x : {q, k})
        require(static_cast<uint64_t>(x.dim(tokens_first ? 1 : 2)) == tokens,
                "[rectified] a grid and text of {} tokens, found {} in {}", tokens,
                x.dim(tokens_first ? 1 : 2), to_string(x.shape()));
    const int64_t heads_axis = tokens_first ? 2 : 1;
    const Sizes sizes{.batch = u(q.dim(0)),
                      .heads = u(q.dim(heads_axis)),
                      .kv_heads = u(k.dim(heads_axis)),
                      .d = u(q.dim(3)),
                      .v_dim = u(v.dim(3))};
    Selection selection;
    const ListSource lists{{o.block, o.block}, [&](vk::Stream& own, TileShape tile) {
                               return select(own, q, k, v, o, options, sizes, tile, selection);
                           }};
    const Tensor result = attention_over(stream, q, k, v, lists, options);
    if (o.rectify)
        rescale_blocks(stream, result, selection.factors, selection.addends, selection.order,
                       options.layout);
    if (o.kept) *o.kept = selection.kept;
    return result;
}

}  // namespace fovea
