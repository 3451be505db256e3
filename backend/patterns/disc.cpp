#include "backend/patterns/disc.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "backend/error.h"
#include "backend/patterns/planner.h"
#include "backend/patterns/sizes.h"

namespace fovea {
namespace {

double square(double x) {
    return x * x;
}

/// Of one axis: between the nearest and between the farthest tokens of a query and a key box.
struct Distance {
    uint32_t least, most;
    auto operator<=>(const Distance&) const = default;
};

/// How often each distance below `reach` occurs. Whole boxes repeat after a common multiple of both
/// extents: one period is looked at, and only ragged boxes at the end are taken one by one.
std::map<Distance, uint64_t> distances(uint32_t length, uint32_t q_extent, uint32_t k_extent,
                                       double reach) {
    std::map<Distance, uint64_t> count;
    const auto add = [&](int64_t q, int64_t k, int64_t q_side, int64_t k_side, bool ragged,
                         int64_t times) {
        const int64_t q_last = q + q_side - 1, k_last = k + k_side - 1;
        const int64_t least = std::max({k - q_last, q - k_last, int64_t{0}});
        if (times <= 0 || static_cast<double>(least) >= reach) return;
        const int64_t most = std::max(k_last - q, q_last - k);
        count[{static_cast<uint32_t>(least), ragged ? 1u << 30 : static_cast<uint32_t>(most)}] +=
            static_cast<uint64_t>(times);
    };
    const int64_t n = length, qe = q_extent, ke = k_extent, period = std::lcm(qe, ke);
    const auto far = static_cast<int64_t>(std::ceil(std::min(reach, double{1} * length)));
    const int64_t q_whole = n / qe * qe, k_whole = n / ke * ke;  // tokens in whole boxes
    const auto floor_to = [](int64_t x, int64_t step) { return x - ((x % step) + step) % step; };
    for (int64_t q = 0; q < std::min(period, q_whole); q += qe) {
        const int64_t last = (q_whole - qe - q) / period;  // query boxes q + i · period, i ≤ last
        for (int64_t k = floor_to(q - far - ke, ke); k < q + qe + far; k += ke) {
            const int64_t from = k < 0 ? (-k + period - 1) / period : 0;
            const int64_t room = k_whole - ke - k;
            add(q, k, qe, ke, false, room < 0 ? 0 : std::min(last, room / period) - from + 1);
        }
    }
    if (q_whole < n)
        for (int64_t k = 0; k < k_whole; k += ke) add(q_whole, k, n - q_whole, ke, false, 1);
    if (k_whole < n)
        for (int64_t q = 0; q < n; q += qe)
            add(q, k_whole, std::min(qe, n - q), n - k_whole, true, 1);
    return count;
}

}  // namespace

/// One side of the blocks: where the token of each slot lies, and the extent of each tile.
struct Disc::Side {
    enum Kind : uint8_t { image, text, none };
    struct Tile {
        uint32_t y0 = ~0u, y1 = 0, x0 = ~0u, x1 = 0;
        bool has_text = false, has_none = false;
    };
    std::vector<uint32_t> token, y, x;
    std::vector<Kind> kind;
    std::vector<Tile> tiles;

    Side(const Disc& disc, const std::array<uint32_t, 3>& box, uint32_t tile) {
        const std::vector<uint32_t> one{0};
        std::vector<uint32_t> rows(disc.rows_), columns(disc.columns_);
        std::iota(rows.begin(), rows.end(), 0);
        std::iota(columns.begin(), columns.end(), 0);
        token = box_order({one, rows, columns}, box);
        for (uint32_t t = 0; t < disc.text_; ++t) token.push_back(disc.image_ + t);
        token.resize(size_t{div_up(static_cast<uint32_t>(token.size()), tile)} * tile,
                     BlockList::kNoToken);
        tiles.resize(token.size() / tile);
        for (size_t slot = 0; slot < token.size(); ++slot) {
            const uint32_t t = token[slot];
            kind.push_back(t < disc.image_ ? image : t == BlockList::kNoToken ? none : text);
            y.push_back(t / disc.columns_);
            x.push_back(t % disc.columns_);
            Tile& at = tiles[slot / tile];
            at.has_text |= kind.back() == text;
            at.has_none |= kind.back() == none;
            if (kind.back() != image) continue;
            at = {std::min(at.y0, y.back()),
                  std::max(at.y1, y.back()),
                  std::min(at.x0, x.back()),
                  std::max(at.x1, x.back()),
                  at.has_text,
                  at.has_none};
        }
    }
};

/// The rule by slots. Queries without a token see what they like: here, whatever is a key.
struct Disc::Slots {
    const Side &q, &k;
    double limit;

    bool keeps(uint32_t a, uint32_t b) const {
        if (k.kind[b] == Side::none) return false;
        if (q.kind[a] != Side::image || k.kind[b] != Side::image) return true;
        return square(double{1} * q.y[a] - k.y[b]) + square(double{1} * q.x[a] - k.x[b]) < limit;
    }
    Grid grid() const { return {}; }
    std::string key() const { return "slots"; }
    Cover cover(TokenRange queries, TokenRange keys) const {
        const auto& a = q.tiles[queries.begin / (queries.end - queries.begin)];
        const auto& b = k.tiles[keys.begin / (keys.end - keys.begin)];
        if (a.has_text || b.has_text) return b.has_none ? Cover::partial : Cover::full;
        const auto gap = [](uint32_t a0, uint32_t a1, uint32_t b0, uint32_t b1) -> double {
            return b0 > a1 ? b0 - a1 : a0 > b1 ? a0 - b1 : 0;
        };
        const auto reach = [](uint32_t a0, uint32_t a1, uint32_t b0, uint32_t b1) {
            return std::max(double{1} * b1 - a0, double{1} * a1 - b0);
        };
        if (square(gap(a.y0, a.y1, b.y0, b.y1)) + square(gap(a.x0, a.x1, b.x0, b.x1)) >= limit)
            return Cover::none;
        const double most =
            square(reach(a.y0, a.y1, b.y0, b.y1)) + square(reach(a.x0, a.x1, b.x0, b.x1));
        return most < limit && !b.has_none ? Cover::full : Cover::partial;
    }
};

Disc::Disc(Grid grid, double radius, uint32_t text_tokens) : text_(text_tokens), radius_(radius) {
    require(grid.shape.size() == 2, "[disc] a grid {{rows, columns}} expected, found {}",
            fmt::join(grid.shape, "x"));
    checked_tokens("disc", grid.shape, text_tokens);
    require(radius > 0 && std::isfinite(radius), "[disc] radius must be above 0, found {}", radius);
    rows_ = grid.shape[0];
    columns_ = grid.shape[1];
    image_ = rows_ * columns_;
}

Grid Disc::grid() const {
    return text_ == 0 ? Grid{.shape = {rows_, columns_}} : Grid{.shape = {image_ + text_}};
}

std::string Disc::key() const {
    return fmt::format("disc:{}:{}x{}:text={}", radius_, rows_, columns_, text_);
}

std::vector<BoxCost> Disc::box_costs(TileShape tile) const {
    const double limit = radius_ * radius_;
    std::vector<BoxCost> costs;
    const auto k_shapes = box_shapes(tile.k, 2);
    for (const auto& q : box_shapes(tile.q, 2))
        for (const auto& k : k_shapes) {
            const auto y = distances(rows_, q[1], k[1], radius_);
            const auto x = distances(columns_, q[2], k[2], radius_);
            BoxCost cost{.boxes = {q, k}};
            const uint64_t text_queries = div_up(text_, tile.q), text_keys = div_up(text_, tile.k);
            cost.query_tiles =
                uint64_t{div_up(rows_, q[1])} * div_up(columns_, q[2]) + text_queries;
            cost.key_tiles = uint64_t{div_up(rows_, k[1])} * div_up(columns_, k[2]) + text_keys;
            cost.visited = cost.full =
                text_queries * cost.key_tiles + (cost.query_tiles - text_queries) * text_keys;
            for (const auto& [dy, ny] : y)
                for (const auto& [dx, nx] : x) {
                    if (square(dy.least) + square(dx.least) < limit) cost.visited += ny * nx;
                    if (square(dy.most) + square(dx.most) < limit) cost.full += ny * nx;
                }
            costs.push_back(cost);
        }
    sort_by_cost(costs);
    return costs;
}

BlockList Disc::blocks(TileShape tile) const {
    return blocks(tile, box_costs(tile).front().boxes);
}

BlockList Disc::blocks(TileShape tile, const Boxes& boxes) const {
    const Side q(*this, boxes.q, tile.q), k(*this, boxes.k, tile.k);
    const Slots slots{.q = q, .k = k, .limit = radius_ * radius_};
    BlockList list = block_list(slots, tile, static_cast<uint32_t>(q.token.size()),
                                static_cast<uint32_t>(k.token.size()));
    list.q_len = list.kv_len = image_ + text_;
    list.q_order = q.token;
    list.k_order = k.token;
    list.kept_pairs = uint64_t{text_} * (2 * uint64_t{image_} + text_);
    for (uint32_t dy = 0; dy < rows_; ++dy)
        for (uint32_t dx = 0; dx < columns_ && square(dy) + square(dx) < radius_ * radius_; ++dx)
            list.kept_pairs += uint64_t{rows_ - dy} * (columns_ - dx) * (dy ? 2 : 1) * (dx ? 2 : 1);
    return list;
}

}  // namespace fovea
