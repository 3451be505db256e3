#include "backend/patterns/boxes.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "backend/error.h"
#include "backend/patterns/list_maker.h"
#include "backend/patterns/sizes.h"

namespace fovea {
namespace {

using Extents = std::array<uint32_t, 3>;

uint32_t length_of(const AxisRule& axis) {
    return static_cast<uint32_t>(axis.keys.size());
}

/// What the boxes of queries of one axis see of its boxes of keys, one box of queries at a time.
class AxisWalk {
  public:
    AxisWalk(const AxisRule& axis, uint32_t q_extent, uint32_t k_extent)
        : axis_(axis), q_extent_(q_extent), k_extent_(k_extent) {}

    uint32_t query_boxes() const { return div_up(length_of(axis_), q_extent_); }
    uint32_t key_boxes() const { return div_up(length_of(axis_), k_extent_); }

    void go_to(uint32_t box) {
        const uint32_t begin = box * q_extent_, end = std::min(begin + q_extent_, length_of(axis_));
        seen_ = std::span(axis_.keys).subspan(begin, end - begin);
        TokenRange common{0, length_of(axis_)};  // seen by every query of the box
        touched_.clear();
        for (const TokenRange& keys : seen_) {
            common = {std::max(common.begin, keys.begin), std::min(common.end, keys.end)};
            if (keys.begin < keys.end)
                join({keys.begin / k_extent_, div_up(keys.end, k_extent_)}, touched_);
        }
        full_ = {div_up(common.begin, k_extent_), common.end / k_extent_};
        full_.end = std::max(full_.begin, full_.end);
        if (touched_.size() == 1) return;
        std::sort(touched_.begin(), touched_.end(),
                  [](TokenRange x, TokenRange y) { return x.begin < y.begin; });
        std::vector<TokenRange> joined;
        for (const TokenRange& stretch : touched_) join(stretch, joined);
        touched_ = std::move(joined);
    }

    std::span<const TokenRange> seen() const { return seen_; }
    /// Stretches of boxes of which some query sees some key, in order.
    std::span<const TokenRange> touched() const { return touched_; }
    /// The boxes of which every query sees every key; among the touched.
    TokenRange full() const { return full_; }

  private:
    /// Into the last one if they touch: neighbours see nearly the same, so few are left.
    static void join(TokenRange stretch, std::vector<TokenRange>& stretches) {
        if (stretches.empty() || stretch.begin > stretches.back().end ||
            stretch.end < stretches.back().begin) {
            stretches.push_back(stretch);
        } else {
            stretches.back().begin = std::min(stretches.back().begin, stretch.begin);
            stretches.back().end = std::max(stretches.back().end, stretch.end);
        }
    }

    const AxisRule& axis_;
    const uint32_t q_extent_, k_extent_;
    std::span<const TokenRange> seen_;
    std::vector<TokenRange> touched_;
    TokenRange full_;
};

/// Pairs of boxes of one axis.
struct AxisCount {
    uint64_t query_boxes, key_boxes, visited = 0, full = 0;

    AxisCount(const AxisRule& axis, uint32_t q_extent, uint32_t k_extent) {
        AxisWalk walk(axis, q_extent, k_extent);
        query_boxes = walk.query_boxes();
        key_boxes = walk.key_boxes();
        for (uint32_t box = 0; box < query_boxes; ++box) {
            walk.go_to(box);
            for (const TokenRange& stretch : walk.touched()) visited += stretch.end - stretch.begin;
            full += walk.full().end - walk.full().begin;
        }
    }
};

/// Of one axis: which key extents the queries of an extent see, and what of them.
struct AxisTable {
    static constexpr uint32_t kFull = 0;   ///< number of the mask that keeps everything
    using Mask = std::vector<TokenRange>;  ///< keys inside the box that each query inside sees
    struct Entry {
        uint32_t key, mask;
        auto operator<=>(const Entry&) const = default;
    };

    uint32_t key_boxes;
    std::vector<std::vector<Entry>> rows;  ///< distinct ones
    std::vector<uint32_t> row_of;          ///< of each query box
    std::vector<Mask> masks;
    uint64_t kept_pairs = 0;

    AxisTable(const AxisRule& axis, uint32_t q_extent, uint32_t k_extent)
        : masks{Mask(q_extent, TokenRange{0, k_extent})} {
        AxisWalk walk(axis, q_extent, k_extent);
        key_boxes = walk.key_boxes();
        std::map<Mask, uint32_t, Less> numbers;
        std::map<std::vector<Entry>, uint32_t> row_numbers;
        for (uint32_t box = 0; box < walk.query_boxes(); ++box) {
            walk.go_to(box);
            for (const TokenRange& keys : walk.seen()) kept_pairs += keys.end - keys.begin;
            std::vector<Entry> row;
            for (const TokenRange& stretch : walk.touched())
                for (uint32_t key = stretch.begin; key < stretch.end; ++key) {
                    row.push_back({key, kFull});
                    if (walk.full().begin <= key && key < walk.full().end) continue;
                    Mask mask = part(walk.seen(), key, q_extent, k_extent);
                    const auto [it, is_new] =
                        numbers.try_emplace(mask, static_cast<uint32_t>(masks.size()));
                    if (is_new) masks.push_back(std::move(mask));
                    row.back().mask = it->second;
                }
            const auto [it, is_new] =
                row_numbers.try_emplace(row, static_cast<uint32_t>(rows.size()));
            if (is_new) rows.push_back(std::move(row));
            row_of.push_back(it->second);
        }
    }

  private:
    struct Less {
        bool operator()(const Mask& a, const Mask& b) const {
            return std::lexicographical_compare(
                a.begin(), a.end(), b.begin(), b.end(), [](TokenRange x, TokenRange y) {
                    return std::tie(x.begin, x.end) < std::tie(y.begin, y.end);
                });
        }
    };

    static Mask part(std::span<const TokenRange> seen, uint32_t key, uint32_t q_extent,
                     uint32_t k_extent) {
        const auto cut = [&](uint32_t at) {
            return std::min(at - std::min(at, key * k_extent), k_extent);
        };
        Mask mask(q_extent);  // queries that stick out of the axis see nothing
        for (size_t i = 0; i < seen.size(); ++i) {
            const TokenRange keys{cut(seen[i].begin), cut(seen[i].end)};
            if (keys.begin < keys.end) mask[i] = keys;
        }
        return mask;
    }
};

/// The bits of a block: query (z, y, x) sees key (z', y', x') where each axis' mask says so.
void add_mask(BlockList& list, const Boxes& boxes,
              const std::array<const AxisTable::Mask*, 3>& axis) {
    const size_t begin = list.masks.size(), words = list.mask_words();
    list.masks.resize(begin + list.tile.q * words);
    for (uint32_t q = 0; q < list.tile.q; ++q) {
        const TokenRange z = (*axis[0])[q / boxes.q[2] / boxes.q[1]];
        const TokenRange y = (*axis[1])[q / boxes.q[2] % boxes.q[1]];
        const TokenRange x = (*axis[2])[q % boxes.q[2]];
        const auto row = std::span(list.masks).subspan(begin + q * words, words);
        for (uint32_t a = z.begin; a < z.end && x.begin < x.end; ++a)
            for (uint32_t b = y.begin; b < y.end; ++b) {
                const uint32_t first = (a * boxes.k[1] + b) * boxes.k[2];
                set_bits(row, {first + x.begin, first + x.end});
            }
    }
}

bool is_identity(const std::vector<uint32_t>& order, uint64_t tokens) {
    for (uint32_t i = 0; i < tokens; ++i)
        if (order[i] != i) return false;
    return true;
}

}  // namespace

std::vector<Extents> box_shapes(uint32_t n, uint32_t rank) {
    std::vector<Extents> shapes;
    for (uint32_t z = 1; z <= n; ++z)
        for (uint32_t y = 1; n % z == 0 && y <= n / z; ++y)
            if (n / z % y == 0 && (z == 1 || rank >= 3) && (y == 1 || rank >= 2))
                shapes.push_back({z, y, n / z / y});
    return shapes;
}

std::vector<uint32_t> box_order(const std::array<std::span<const uint32_t>, 3>& coordinate,
                                const Extents& box) {
    Extents count;
    for (size_t i = 0; i < 3; ++i)
        count[i] = div_up(static_cast<uint32_t>(coordinate[i].size()), box[i]);
    std::vector<uint32_t> order;
    order.reserve(size_t{count[0]} * count[1] * count[2] * box[0] * box[1] * box[2]);
    const auto at = [&](size_t axis, uint32_t position) {
        return position < coordinate[axis].size() ? coordinate[axis][position]
                                                  : BlockList::kNoToken;
    };
    const auto rows = static_cast<uint32_t>(coordinate[1].size());
    const auto columns = static_cast<uint32_t>(coordinate[2].size());
    const auto each = [](uint32_t first, uint32_t n, auto&& f) {
        for (uint32_t i = first; i < first + n; ++i) f(i);
    };
    each(0, count[0], [&](uint32_t bz) {
        each(0, count[1], [&](uint32_t by) {
            each(0, count[2], [&](uint32_t bx) {
                each(bz * box[0], box[0], [&](uint32_t pz) {
                    each(by * box[1], box[1], [&](uint32_t py) {
                        each(bx * box[2], box[2], [&](uint32_t px) {
                            const uint32_t z = at(0, pz), y = at(1, py), x = at(2, px);
                            const bool out = std::max({z, y, x}) == BlockList::kNoToken;
                            order.push_back(out ? BlockList::kNoToken
                                                : (z * rows + y) * columns + x);
                        });
                    });
                });
            });
        });
    });
    return order;
}

void sort_by_cost(std::vector<BoxCost>& costs) {
    const auto rank_of = [](const BoxCost& c) {
        const auto& [q, k] = c.boxes;
        return std::tuple(c.visited, c.visited - c.full, ~k[2], ~q[2], ~k[1], ~q[1]);
    };
    std::sort(costs.begin(), costs.end(),
              [&](const BoxCost& a, const BoxCost& b) { return rank_of(a) < rank_of(b); });
}

std::vector<BoxCost> box_costs(const AxisRules& axes, uint32_t rank, TileShape tile) {
    std::map<std::tuple<size_t, uint32_t, uint32_t>, AxisCount> counts;
    const auto count = [&](size_t axis, uint32_t q, uint32_t k) -> const AxisCount& {
        return counts.try_emplace({axis, q, k}, axes[axis], q, k).first->second;
    };
    std::vector<BoxCost> costs;
    const auto k_shapes = box_shapes(tile.k, rank);
    for (const Extents& q : box_shapes(tile.q, rank))
        for (const Extents& k : k_shapes) {
            BoxCost cost{{q, k}, 1, 1, 1, 1};
            for (size_t i = 0; i < 3; ++i) {
                const AxisCount& n = count(i, q[i], k[i]);
                cost.query_tiles *= n.query_boxes;
                cost.key_tiles *= n.key_boxes;
                cost.visited *= n.visited;
                cost.full *= n.full;
            }
            costs.push_back(cost);
        }
    sort_by_cost(costs);
    return costs;
}

BlockList box_blocks(const AxisRules& axes, TileShape tile, const Boxes& boxes) {
    const auto volume = [](const Extents& e) { return uint64_t{e[0]} * e[1] * e[2]; };
    require(volume(boxes.q) == tile.q && volume(boxes.k) == tile.k,
            "[block_list] boxes {} and {} found for tiles of {} queries and {} keys",
            fmt::join(boxes.q, "x"), fmt::join(boxes.k, "x"), tile.q, tile.k);
    const AxisTable z(axes[0], boxes.q[0], boxes.k[0]), y(axes[1], boxes.q[1], boxes.k[1]),
        x(axes[2], boxes.q[2], boxes.k[2]);
    uint64_t tokens = 1;
    for (const AxisRule& axis : axes) tokens *= axis.keys.size();
    BlockList list{.tile = tile,
                   .q_len = static_cast<uint32_t>(tokens),
                   .kv_len = static_cast<uint32_t>(tokens),
                   .kept_pairs = z.kept_pairs * y.kept_pairs * x.kept_pairs};
    const std::array<std::span<const uint32_t>, 3> coordinate{
        axes[0].coordinate, axes[1].coordinate, axes[2].coordinate};
    list.q_order = box_order(coordinate, boxes.q);
    list.k_order = box_order(coordinate, boxes.k);
    if (is_identity(list.q_order, tokens) && is_identity(list.k_order, tokens)) {
        list.q_order.clear();
        list.k_order.clear();
    }

    std::vector<uint32_t> mask_of(z.masks.size() * y.masks.size() * x.masks.size(),
                                  BlockList::kFull);
    uint32_t masks = 0;
    const auto mask = [&](const AxisTable::Entry& a, const AxisTable::Entry& b,
                          const AxisTable::Entry& c) {
        if (a.mask == AxisTable::kFull && b.mask == AxisTable::kFull && c.mask == AxisTable::kFull)
            return BlockList::kFull;
        uint32_t& number = mask_of[(a.mask * y.masks.size() + b.mask) * x.masks.size() + c.mask];
        if (number == BlockList::kFull) {
            number = masks++;
            add_mask(list, boxes, {&z.masks[a.mask], &y.masks[b.mask], &x.masks[c.mask]});
        }
        return number;
    };
    std::vector<BlockList::Row> row_of(z.rows.size() * y.rows.size() * x.rows.size(), {0, 0});
    for (const uint32_t rz : z.row_of)
        for (const uint32_t ry : y.row_of)
            for (const uint32_t rx : x.row_of) {
                auto& row = row_of[(rz * y.rows.size() + ry) * x.rows.size() + rx];
                if (row.count == 0) {
                    row.first = static_cast<uint32_t>(list.blocks.size());
                    for (const auto& a : z.rows[rz])
                        for (const auto& b : y.rows[ry])
                            for (const auto& c : x.rows[rx])
                                list.blocks.push_back(
                                    {(a.key * y.key_boxes + b.key) * x.key_boxes + c.key,
                                     mask(a, b, c)});
                    row.count = static_cast<uint32_t>(list.blocks.size()) - row.first;
                }
                list.rows.push_back(row);
            }
    return list;
}

}  // namespace fovea
