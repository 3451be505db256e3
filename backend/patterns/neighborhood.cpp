#include "backend/patterns/neighborhood.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "backend/error.h"
#include "backend/patterns/sizes.h"

namespace fovea {

Neighborhood::Neighborhood(Grid grid, const NeighborhoodOptions& options) : grid_(std::move(grid)) {
    const size_t rank = grid_.shape.size();
    require(rank >= 1 && rank <= 3, "[neighborhood] a grid of 1 to 3 axes expected, found {}",
            rank);
    const auto one_per_axis = [&](size_t found, const char* name, bool optional) {
        require(found == rank || (optional && found == 0),
                "[neighborhood] {} needs one value per axis, found {} for a grid of {}", name,
                found, fmt::join(grid_.shape, "x"));
    };
    one_per_axis(options.window.size(), "window", false);
    one_per_axis(options.stride.size(), "stride", true);
    one_per_axis(options.dilation.size(), "dilation", true);
    one_per_axis(options.causal.size(), "causal", true);

    for (size_t i = 0; i < rank; ++i) {
        NeighborhoodAxis& axis = axes_[3 - rank + i];
        axis.length = grid_.shape[i];
        axis.window = options.window[i];
        if (!options.stride.empty()) axis.stride = options.stride[i];
        if (!options.dilation.empty()) axis.dilation = options.dilation[i];
        if (!options.causal.empty()) axis.causal = options.causal[i];
        require(axis.length >= 1, "[neighborhood] axis {} of the grid has length 0", i);
        require(axis.window >= 1 && axis.dilation >= 1 &&
                    uint64_t{axis.window} * axis.dilation <= axis.length,
                "[neighborhood] window × dilation must be 1 to the axis length {}, found {} × {} "
                "on axis {}",
                axis.length, axis.window, axis.dilation, i);
        require(axis.stride >= 1 && axis.stride <= axis.window,
                "[neighborhood] stride must be 1 to the window {}, found {} on axis {}",
                axis.window, axis.stride, i);
    }

    checked_tokens("neighborhood", grid_.shape);

    const auto values = [&](uint32_t NeighborhoodAxis::*member) {
        std::vector<uint32_t> list;
        for (size_t i = 3 - rank; i < 3; ++i) list.push_back(axes_[i].*member);
        return list;
    };
    std::vector<int> causal;
    for (size_t i = 3 - rank; i < 3; ++i) causal.push_back(axes_[i].causal);
    key_ = fmt::format("neighborhood:{}:stride={}:dilation={}:causal={}@{}",
                       fmt::join(values(&NeighborhoodAxis::window), "x"),
                       fmt::join(values(&NeighborhoodAxis::stride), "x"),
                       fmt::join(values(&NeighborhoodAxis::dilation), "x"), fmt::join(causal, "x"),
                       fmt::join(grid_.shape, "x"));
}

NeighborhoodAxis::Keys NeighborhoodAxis::keys_of(uint32_t query) const {
    const uint32_t group = query % dilation, i = query / dilation;
    const uint32_t n = (length - group + dilation - 1) / dilation;  // tokens of this group
    uint32_t begin, end;
    if (causal) {
        const uint32_t leader = std::min(i / stride * stride + stride - 1, n - 1);
        begin = leader + 1 - std::min(leader + 1, window);
        end = i + 1;
    } else {
        const uint32_t leader = std::min(i / stride * stride + stride / 2, n - 1);
        const uint32_t left = window / 2;
        begin = std::min(leader - std::min(leader, left), n - window);
        end = begin + window;
    }
    return {.first = begin * dilation + group, .step = dilation, .count = end - begin};
}

bool Neighborhood::keeps(uint32_t q, uint32_t k) const {
    for (size_t i = 3; i-- > 0;) {
        const NeighborhoodAxis& axis = axes_[i];
        if (!axis.keys_of(q % axis.length).contains(k % axis.length)) return false;
        q /= axis.length;
        k /= axis.length;
    }
    return true;
}

TokenRange NeighborhoodAxis::keys_at(uint32_t position) const {
    const uint32_t least = length / dilation, longer = length % dilation;  // groups of one more
    const uint32_t split = longer * (least + 1);
    const uint32_t group =
        position < split ? position / (least + 1) : longer + (position - split) / least;
    const uint32_t start = group * least + std::min(group, longer);
    const Keys keys = keys_of(group + (position - start) * dilation);
    const uint32_t begin = start + keys.first / dilation;
    return {begin, begin + keys.count};
}

AxisRule NeighborhoodAxis::rule() const {
    AxisRule rule;
    for (uint32_t group = 0; group < dilation; ++group)
        for (uint32_t i = group; i < length; i += dilation) rule.coordinate.push_back(i);
    for (uint32_t i = 0; i < length; ++i) rule.keys.push_back(keys_at(i));
    return rule;
}

bool NeighborhoodAxis::perfectly_block_sparse(uint32_t q_tile, uint32_t k_tile) const {
    // From the end, whose border soon shows most of what is not.
    for (uint32_t begin = length, end; begin > 0;) {
        end = begin;
        begin = (end - 1) / q_tile * q_tile;
        const TokenRange keys = keys_at(begin);
        if (keys.begin % k_tile != 0 || keys.end % k_tile != 0) return false;
        for (uint32_t i = begin + 1; i < end; ++i)
            if (keys_at(i) != keys) return false;
    }
    return true;
}

std::vector<BoxCost> Neighborhood::box_costs(TileShape tile) const {
    return fovea::box_costs(rules(), static_cast<uint32_t>(grid_.shape.size()), tile);
}

BlockList Neighborhood::blocks(TileShape tile, const Boxes& boxes) const {
    return box_blocks(rules(), tile, boxes);
}

BlockList Neighborhood::blocks(TileShape tile) const {
    return blocks(tile, box_costs(tile).front().boxes);
}

}  // namespace fovea
