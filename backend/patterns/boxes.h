#pragma once

#include <array>
#include <span>
#include <vector>

#include "backend/patterns/block_list.h"
#include "backend/patterns/pattern.h"

/// Tiles that are boxes of a 2-D or 3-D grid, and block lists of rules that are products of one
/// interval an axis (neighborhood attention). A window is a box, so boxes of queries and keys meet
/// in far fewer blocks than stretches of rows do.
///
/// The lists cost nothing that grows with pairs: for every axis, each pair of extents of a query
/// and a key box is none, full or a small mask; a block is the product of three such entries. Equal
/// masks have equal triples and so are made once, and boxes with equal entries share a row.
namespace fovea {

/// One axis of the rule, in an order of its own: dilated axes lie group after group, so that the
/// keys of a query are neighbours.
struct AxisRule {
    std::vector<uint32_t> coordinate;  ///< on the grid, of each position
    std::vector<TokenRange> keys;      ///< the positions that the query at each position sees
};
using AxisRules = std::array<AxisRule, 3>;

/// The best first: fewest blocks visited, then fewest partial, then the longest rows.
void sort_by_cost(std::vector<BoxCost>& costs);

/// All boxes of tile.q and tile.k tokens over the last `rank` axes, the best first.
std::vector<BoxCost> box_costs(const AxisRules& axes, uint32_t rank, TileShape tile);

/// Throws Error unless the boxes hold tile.q and tile.k tokens.
BlockList box_blocks(const AxisRules& axes, TileShape tile, const Boxes& boxes);

/// Every way to write n as a product of one factor an axis, axes before the last `rank` 1.
std::vector<std::array<uint32_t, 3>> box_shapes(uint32_t n, uint32_t rank);

/// Token of each slot of a grid cut into boxes, kNoToken where a box sticks out. `coordinate` gives
/// each axis' order.
std::vector<uint32_t> box_order(const std::array<std::span<const uint32_t>, 3>& coordinate,
                                const std::array<uint32_t, 3>& box);

}  // namespace fovea
