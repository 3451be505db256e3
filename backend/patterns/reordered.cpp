#include "backend/patterns/reordered.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>

#include "backend/error.h"
#include "backend/patterns/block_sparse.h"
#include "backend/patterns/planner.h"
#include "backend/patterns/sizes.h"

namespace fovea {
namespace {

constexpr std::array kNames = {"FHW", "FWH", "HWF", "HFW", "WHF", "WFH"};

using Tokens = std::shared_ptr<const std::vector<uint32_t>>;

Tokens inverse(const std::vector<uint32_t>& token_of) {
    std::vector<uint32_t> slot_of(token_of.size());
    for (uint32_t slot = 0; slot < token_of.size(); ++slot) slot_of[token_of[slot]] = slot;
    return std::make_shared<std::vector<uint32_t>>(std::move(slot_of));
}

}  // namespace

const char* name_of(AxisOrder order) {
    return kNames[static_cast<size_t>(order)];
}

AxisOrder parse_axis_order(std::string_view text) {
    const auto* found = std::find(kNames.begin(), kNames.end(), text);
    require(found != kNames.end(), "[reordered] order \"{}\" found, expected one of {}", text,
            fmt::join(kNames, ", "));
    return static_cast<AxisOrder>(found - kNames.begin());
}

std::vector<uint32_t> reordered_tokens(const Grid& grid, AxisOrder order, uint32_t text_tokens) {
    require(grid.shape.size() == 3, "[reordered] a grid of 3 axes expected, found {}",
            grid.shape.size());
    const std::string_view letters = "FHW", name = name_of(order);
    std::array<size_t, 3> axis;  // of the grid, outermost of the sequence first
    for (size_t i = 0; i < 3; ++i) axis[i] = letters.find(name[i]);
    std::vector<uint32_t> tokens(text_tokens);
    for (uint32_t i = 0; i < text_tokens; ++i) tokens[i] = i;
    tokens.reserve(text_tokens + grid.tokens());
    std::array<uint32_t, 3> at;
    const auto& n = grid.shape;
    for (at[axis[0]] = 0; at[axis[0]] < n[axis[0]]; ++at[axis[0]])
        for (at[axis[1]] = 0; at[axis[1]] < n[axis[1]]; ++at[axis[1]])
            for (at[axis[2]] = 0; at[axis[2]] < n[axis[2]]; ++at[axis[2]])
                tokens.push_back(text_tokens + (at[0] * n[1] + at[1]) * n[2] + at[2]);
    return tokens;
}

Reordered::Reordered(const ReorderedOptions& o) {
    require(o.grid.shape.size() == 3,
            "[reordered] a grid {{frames, rows, columns}} expected, found {}",
            fmt::join(o.grid.shape, "x"));
    require(!o.orders.empty(), "[reordered] one order a head expected, found none");
    require(o.block_q >= 1 && o.block_k >= 1,
            "[reordered] block_q and block_k must be at least 1, found {} and {}", o.block_q,
            o.block_k);
    const uint32_t n = checked_tokens("reordered", o.grid.shape, o.text_tokens);
    grid_ = o.text_tokens == 0 ? o.grid : Grid{.shape = {n}};
    const TileShape block{o.block_q, o.block_k};
    const uint32_t rows = div_up(n, block.q), cols = div_up(n, block.k);
    const size_t size = size_t{rows} * cols, heads = o.orders.size();
    require(o.mask.size() == size || o.mask.size() == heads * size,
            "[reordered] a mask of (heads or 1, q_blocks, k_blocks) = ({} or 1, {}, {}) needs {} "
            "or {} values, found {}",
            heads, rows, cols, heads * size, size, o.mask.size());

    std::vector<std::shared_ptr<const BlockMask>> masks;
    for (size_t h = 0; h < o.mask.size() / size; ++h) {
        BlockMask mask{.block = block, .rows = rows, .cols = cols};
        for (size_t i = 0; i < size; ++i) mask.visible.push_back(o.mask[h * size + i] != 0);
        masks.push_back(std::make_shared<BlockMask>(std::move(mask)));
    }
    std::map<AxisOrder, std::pair<Tokens, Tokens>> tokens;
    for (size_t h = 0; h < heads; ++h) {
        auto& [token_of, slot_of] = tokens[o.orders[h]];
        if (!token_of) {
            token_of = std::make_shared<std::vector<uint32_t>>(
                reordered_tokens(o.grid, o.orders[h], o.text_tokens));
            slot_of = inverse(*token_of);
        }
        const auto& mask = masks[h % masks.size()];
        heads_.push_back({o.orders[h], token_of, slot_of, mask,
                          fmt::format("reordered:{}:{}:text={}:{}", name_of(o.orders[h]),
                                      fmt::join(o.grid.shape, "x"), o.text_tokens, digest(*mask))});
    }
}

std::string Reordered::key() const {
    std::string keys;
    for (const Head& head : heads_) keys += (keys.empty() ? "" : ",") + head.key;
    return keys;
}

BlockList Reordered::blocks(TileShape tile) const {
    const Head& head = heads_[0];
    const auto n = static_cast<uint32_t>(head.token_of->size());
    BlockList list = block_list(BlockSparse(*head.mask), tile, n, n);
    if (head.order == AxisOrder::fhw) return list;  // tokens lie so already
    const auto padded = [&](uint32_t side) {
        std::vector<uint32_t> order = *head.token_of;
        order.resize((n + side - 1) / side * side, BlockList::kNoToken);
        return order;
    };
    list.q_order = padded(tile.q);
    list.k_order = padded(tile.k);
    return list;
}

}  // namespace fovea
