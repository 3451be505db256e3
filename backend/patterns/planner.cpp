#include "backend/patterns/planner.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <string>
#include <tuple>

#include "backend/error.h"
#include "backend/patterns/boxes.h"
#include "backend/patterns/list_maker.h"
#include "backend/patterns/parallel.h"
#include "backend/patterns/sizes.h"

namespace fovea {
namespace {

uint64_t bits_of(std::span<const uint32_t> words) {
    uint64_t count = 0;
    for (const uint32_t word : words) count += static_cast<uint32_t>(__builtin_popcount(word));
    return count;
}

/// Token of each slot, whole tiles long.
struct Slots {
    std::vector<uint32_t> q, k;
    bool in_order = true;  ///< slot i holds token i
};

std::vector<uint32_t> whole_tiles(uint32_t length, uint32_t tile) {
    std::vector<uint32_t> tokens(size_t{div_up(length, tile)} * tile, BlockList::kNoToken);
    std::iota(tokens.begin(), tokens.begin() + length, 0);
    return tokens;
}

/// Of a rule of which nothing is known: few slots without a token, then boxes near to cubes, then
/// long rows.
std::array<uint32_t, 3> compact_box(const std::array<uint32_t, 3>& grid, uint32_t rank,
                                    uint32_t tile) {
    const auto shapes = box_shapes(tile, rank);
    const auto cost = [&](const auto& box) {
        uint64_t slots = 1, extents = 0;
        for (size_t i = 0; i < 3; ++i) {
            slots *= uint64_t{div_up(grid[i], box[i])} * box[i];
            extents += box[i];
        }
        return std::tuple(slots, extents, ~box[2], ~box[1]);
    };
    return *std::min_element(shapes.begin(), shapes.end(),
                             [&](const auto& a, const auto& b) { return cost(a) < cost(b); });
}

/// Tiles are boxes where the rule does not speak of stretches of tokens itself.
Slots slots_of(const Pattern& pattern, const BlockList& sizes) {
    const auto& shape = pattern.grid().shape;
    const size_t rank = shape.size();
    if (rank < 2 || rank > 3 || pattern.has_cover() || pattern.granularity().q > 0)
        return {whole_tiles(sizes.q_len, sizes.tile.q), whole_tiles(sizes.kv_len, sizes.tile.k)};
    std::array<uint32_t, 3> grid{1, 1, 1};
    std::copy(shape.begin(), shape.end(), grid.end() - static_cast<std::ptrdiff_t>(rank));
    std::array<std::vector<uint32_t>, 3> axis;
    for (size_t i = 0; i < 3; ++i) axis[i] = whole_tiles(grid[i], 1);
    const auto order = [&](uint32_t tile) {
        const auto box = compact_box(grid, static_cast<uint32_t>(rank), tile);
        return box_order({axis[0], axis[1], axis[2]}, box);
    };
    return {order(sizes.tile.q), order(sizes.tile.k), false};
}

/// One query tile at a time, by cover() and keeps() of the pattern.
class Builder {
  public:
    Builder(BlockList& list, const Pattern& pattern, const Slots& slots)
        : list_(list),
          pattern_(pattern),
          slots_(slots),
          granule_(pattern.granularity()),
          words_(list.mask_words()),
          mask_(size_t{list.tile.q} * words_),
          maker_(list) {}

    void add(uint32_t query_tile) {
        const TileShape tile = list_.tile;
        const auto queries = std::span(slots_.q).subspan(size_t{query_tile} * tile.q, tile.q);
        const auto rows =
            static_cast<uint32_t>(std::count_if(queries.begin(), queries.end(), [](uint32_t token) {
                return token != BlockList::kNoToken;
            }));
        const uint64_t all = uint64_t{rows} * tile.k;
        const TokenRange stretch = part(query_tile, tile.q, list_.q_len);
        blocks_.clear();
        for (uint32_t t = 0; t < slots_.k.size() / tile.k; ++t) {
            const TokenRange keys = part(t, tile.k, list_.kv_len);
            const Cover cover = slots_.in_order ? pattern_.cover(stretch, keys) : Cover::partial;
            if (cover == Cover::none) continue;
            if (cover == Cover::full && keys.end - keys.begin == tile.k) {
                blocks_.push_back({t, BlockList::kFull});
                list_.kept_pairs += all;
                continue;
            }
            std::fill(mask_.begin(), mask_.end(), 0);
            for (uint32_t r = 0; r < tile.q; ++r)
                if (queries[r] != BlockList::kNoToken)
                    add_row(queries[r], t, keys, cover, mask_row(r), r > 0);
            const uint64_t kept = bits_of(mask_);
            list_.kept_pairs += kept;
            if (kept > 0)
                blocks_.push_back({t, kept == all ? BlockList::kFull : maker_.mask(mask_)});
        }
        maker_.row(blocks_);
    }

  private:
    static TokenRange part(uint32_t tile, uint32_t side, uint32_t length) {
        return {tile * side, std::min(tile * side + side, length)};
    }

    void add_row(uint32_t q, uint32_t key_tile, TokenRange keys, Cover cover,
                 std::span<uint32_t> row, bool has_last) {
        if (cover == Cover::full) {
            set_bits(row, {0, keys.end - keys.begin});
        } else if (granule_.q == 0) {
            const uint32_t side = list_.tile.k;
            pattern_.add_bits(q, std::span(slots_.k).subspan(size_t{key_tile} * side, side), row);
        } else if (has_last && q % granule_.q != 0) {
            const auto last = row.data() - words_;
            std::copy(last, last + words_, row.begin());
        } else {
            for (uint32_t at = keys.begin, end; at < keys.end; at = end) {
                end = std::min(keys.end, at - at % granule_.k + granule_.k);
                if (pattern_.keeps(q, at)) set_bits(row, {at - keys.begin, end - keys.begin});
            }
        }
    }

    std::span<uint32_t> mask_row(uint32_t row) {
        return std::span(mask_).subspan(size_t{row} * words_, words_);
    }

    BlockList& list_;
    const Pattern& pattern_;
    const Slots& slots_;
    const TileShape granule_;
    const uint32_t words_;
    std::vector<uint32_t> mask_;
    ListMaker maker_;
    std::vector<BlockList::Block> blocks_;
};

/// Appends the rows of `part`, whose masks have numbers of their own.
void append(BlockList& list, ListMaker& maker, const BlockList& part) {
    const size_t size = size_t{list.tile.q} * list.mask_words();
    std::vector<uint32_t> number;
    for (size_t at = 0; at < part.masks.size(); at += size)
        number.push_back(maker.mask(std::span(part.masks).subspan(at, size)));
    std::vector<BlockList::Block> blocks;
    for (uint32_t t = 0; t < part.query_tiles(); ++t) {
        const auto row = part.row(t);
        blocks.assign(row.begin(), row.end());
        for (auto& block : blocks)
            if (block.mask != BlockList::kFull) block.mask = number[block.mask];
        maker.row(blocks);
    }
    list.kept_pairs += part.kept_pairs;
}

/// Threads take stretches of query tiles; the parts are put together in order, so that the list
/// does not depend on their number.
BlockList build(const Pattern& pattern, const BlockList& sizes) {
    constexpr uint32_t kStretch = 16;  // tiles: enough to share rows and masks inside a part
    Slots slots = slots_of(pattern, sizes);
    const auto tiles = static_cast<uint32_t>(slots.q.size() / sizes.tile.q);
    std::vector<BlockList> parts(div_up(tiles, kStretch), sizes);
    for_each_in_parallel(static_cast<uint32_t>(parts.size()), [&](uint32_t p) {
        Builder builder(parts[p], pattern, slots);
        for (uint32_t t = p * kStretch; t < std::min(tiles, (p + 1) * kStretch); ++t)
            builder.add(t);
    });
    BlockList list = sizes;
    ListMaker maker(list);
    for (BlockList& part : parts) {
        append(list, maker, part);
        part = {};
    }
    if (!slots.in_order) {
        list.q_order = std::move(slots.q);
        list.k_order = std::move(slots.k);
    }
    return list;
}

/// The same list with blocks of the extra keys at the end of every row.
BlockList with_extra(BlockList list, uint32_t extra_len) {
    list.extra_len = extra_len;
    list.kept_pairs += uint64_t{list.q_len} * extra_len;
    const uint32_t first = list.key_tiles(), tail = extra_len % list.tile.k;
    std::vector<uint32_t> mask(size_t{list.tile.q} * list.mask_words());
    for (uint32_t q = 0; q < list.tile.q; ++q)
        set_bits(std::span(mask).subspan(size_t{q} * list.mask_words()), {0, tail});
    const uint32_t last_mask = tail > 0 ? ListMaker(list).mask(mask) : BlockList::kFull;
    std::vector<BlockList::Block> blocks;
    std::map<std::pair<uint32_t, uint32_t>, BlockList::Row> moved;  // rows may share their blocks
    for (BlockList::Row& row : list.rows) {
        const auto [it, is_new] = moved.try_emplace({row.first, row.count});
        if (is_new) {
            const auto old = std::span(list.blocks).subspan(row.first, row.count);
            it->second = {static_cast<uint32_t>(blocks.size()), row.count + list.extra_tiles()};
            blocks.insert(blocks.end(), old.begin(), old.end());
            for (uint32_t t = 0; t < list.extra_tiles(); ++t)
                blocks.push_back(
                    {first + t, t + 1 == list.extra_tiles() ? last_mask : BlockList::kFull});
        }
        row = it->second;
    }
    list.blocks = std::move(blocks);
    return list;
}

}  // namespace

BlockList block_list(const Pattern& pattern, TileShape tile, uint32_t q_len, uint32_t kv_len,
                     uint32_t extra_len) {
    require(tile.q > 0 && tile.k > 0 && q_len > 0 && kv_len > 0,
            "[block_list] tile and lengths must be at least 1, found {}×{}, {} and {}", tile.q,
            tile.k, q_len, kv_len);
    const uint64_t tokens = pattern.grid().tokens();
    require(pattern.grid().shape.empty() || (q_len == tokens && kv_len == tokens),
            "[block_list] {} queries and {} keys found, the grid {} has {} tokens", q_len, kv_len,
            fmt::join(pattern.grid().shape, "x"), tokens);
    pattern.accepts(q_len, kv_len);
    if (pattern.heads() > 0) return block_list(pattern.head(0), tile, q_len, kv_len, extra_len);
    const BlockList sizes{.tile = tile, .q_len = q_len, .kv_len = kv_len};
    BlockList list = pattern.has_blocks() ? pattern.blocks(tile) : build(pattern, sizes);
    return extra_len == 0 ? list : with_extra(std::move(list), extra_len);
}

Plan plan(const Pattern& pattern, TileShape tile, uint32_t q_len, uint32_t kv_len,
          uint32_t extra_len) {
    Plan plan;
    std::map<std::string, uint32_t> numbers;
    for (uint32_t h = 0; h < std::max(1u, pattern.heads()); ++h) {
        const Pattern head = pattern.head(h);
        const auto [it, is_new] =
            numbers.emplace(head.key(), static_cast<uint32_t>(plan.lists.size()));
        if (is_new) plan.lists.push_back(block_list(head, tile, q_len, kv_len, extra_len));
        if (pattern.heads() > 0) plan.list_of_head.push_back(it->second);
    }
    return plan;
}

}  // namespace fovea
