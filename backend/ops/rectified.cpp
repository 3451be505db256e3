#include "backend/ops/rectified.h"

#include <fmt/ranges.h>

#include <cmath>

#include "backend/error.h"
#include "backend/ops/attention_lists.h"
#include "backend/ops/block_selection.h"
#include "backend/ops/dispatch.h"
#include "backend/ops/rescale.h"

namespace fovea {

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
    const float share = std::ceil(
        o.keep * static_cast<float>(o.grid.tokens() / o.block + (o.grid.tokens() % o.block != 0)) -
        1e-3f);
    const SelectionOptions select{
        .batch = u32(q.dim(0)),
        .heads = u32(q.dim(heads_axis)),
        .kv_heads = u32(k.dim(heads_axis)),
        .d = u32(q.dim(3)),
        .v_dim = u32(v.dim(3)),
        .least = static_cast<uint32_t>(share),
        .mass = o.mass,
        .scale = options.scale != 0 ? options.scale : 1 / std::sqrt(static_cast<float>(q.dim(3))),
        .rectify = o.rectify};
    BlockSelection selection;
    Tensor order;
    const auto make = [&](vk::Stream& own, TileShape tile) {
        require(o.block % tile.q == 0 && o.block % tile.k == 0,
                "[rectified] blocks of {} tokens found, expected a multiple of the kernel's tiles "
                "of {}×{}",
                o.block, tile.q, tile.k);
        const BlockLayout& layout = block_layout(
            own,
            fmt::format("compact {} {} {}", fmt::join(o.grid.shape, "x"), o.block, o.text_tokens),
            [&] { return compact_blocks(o.grid, o.block, o.text_tokens); }, tile,
            select.batch * select.heads);
        order = layout.order;
        const auto pool = [&](const Tensor& x, uint32_t singles, bool with_spreads) {
            return pool_blocks(own, x, options.layout, layout, singles, with_spreads);
        };
        selection =
            select_blocks(own, layout, pool(q, 0, o.rectify), pool(k, o.text_tokens, o.rectify),
                          o.rectify ? pool(v, 0, false) : PooledBlocks{}, select);
        return selection.list;
    };
    const ListSource lists{{o.block, o.block}, make};
    const Tensor result = attention_over(stream, q, k, v, lists, options);
    if (o.rectify)
        rescale_blocks(stream, result, selection.factors, selection.addends, order, options.layout);
    if (o.kept) *o.kept = selection.kept;
    return result;
}

}  // namespace fovea
