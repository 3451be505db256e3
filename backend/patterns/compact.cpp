#include "backend/patterns/compact.h"

#include <algorithm>
#include <array>
#include <bit>

#include "backend/error.h"
#include "backend/patterns/sizes.h"

namespace fovea {
namespace {

using Three = std::array<uint32_t, 3>;

Three three_axes(const Grid& grid) {
    Three shape{1, 1, 1};
    std::copy(grid.shape.begin(), grid.shape.end(),
              shape.end() - static_cast<std::ptrdiff_t>(grid.shape.size()));
    return shape;
}

void halve(const Three& shape, const Three& begin, const Three& extent,
           std::vector<uint32_t>& order) {
    const auto axis =
        static_cast<size_t>(std::max_element(extent.begin(), extent.end()) - extent.begin());
    if (extent[axis] == 1) {
        order.push_back((begin[0] * shape[1] + begin[1]) * shape[2] + begin[2]);
        return;
    }
    const uint32_t first = std::bit_ceil(extent[axis]) / 2;
    Three part = extent, at = begin;
    part[axis] = first;
    halve(shape, begin, part, order);
    part[axis] = extent[axis] - first;
    at[axis] += first;
    halve(shape, at, part, order);
}

}  // namespace

std::vector<uint32_t> compact_order(const Grid& grid) {
    require(!grid.shape.empty() && grid.shape.size() <= 3,
            "[compact] a grid of 1 to 3 axes expected, found {}", grid.shape.size());
    std::vector<uint32_t> order;
    order.reserve(checked_tokens("compact", grid.shape));
    const Three shape = three_axes(grid);
    halve(shape, {0, 0, 0}, shape, order);
    return order;
}

CompactBlocks compact_blocks(const Grid& grid, uint32_t block, uint32_t text_tokens) {
    require(block >= 1, "[compact] blocks of at least 1 token expected, found {}", block);
    CompactBlocks b{.block = block, .text_tokens = text_tokens, .order = compact_order(grid)};
    checked_tokens("compact", grid.shape, text_tokens);
    b.grid_tokens = static_cast<uint32_t>(b.order.size());
    b.grid_blocks = div_up(b.grid_tokens, block);
    b.text_blocks = div_up(text_tokens, block);
    const uint32_t n = b.blocks();
    std::vector<uint32_t> block_of(b.grid_tokens);
    for (uint32_t slot = 0; slot < b.grid_tokens; ++slot) block_of[b.order[slot]] = slot / block;
    b.order.resize(size_t{b.grid_blocks} * block, BlockList::kNoToken);
    for (uint32_t i = 0; i < text_tokens; ++i) b.order.push_back(b.grid_tokens + i);
    b.order.resize(size_t{n} * block, BlockList::kNoToken);

    b.touch.resize(size_t{n} * n);
    for (uint32_t i = 0; i < n; ++i) b.touch[size_t{i} * n + i] = 1;
    const Three shape = three_axes(grid);
    const Three step{shape[1] * shape[2], shape[2], 1};
    for (uint32_t token = 0; token < b.grid_tokens; ++token)
        for (size_t axis = 0; axis < 3; ++axis) {
            if (token / step[axis] % shape[axis] + 1 == shape[axis]) continue;
            const size_t here = block_of[token], there = block_of[token + step[axis]];
            b.touch[here * n + there] = b.touch[there * n + here] = 1;
        }
    for (uint32_t i = 0; i < n; ++i)
        for (uint32_t t = b.grid_blocks; t < n; ++t)
            b.touch[size_t{i} * n + t] = b.touch[size_t{t} * n + i] = 1;
    return b;
}

}  // namespace fovea
