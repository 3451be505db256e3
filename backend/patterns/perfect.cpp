#include "backend/patterns/perfect.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

namespace fovea {
namespace {

/// Of one axis, in given extents of boxes.
struct Choice {
    uint32_t window, stride;
    double distance;
    uint64_t query_boxes, key_boxes, visited;
    double kept_share;
};

std::set<uint32_t> windows_near(const NeighborhoodAxis& asked, uint32_t k_tile) {
    constexpr uint32_t kSteps = 4;
    const uint32_t most = asked.length / asked.dilation, low = asked.window / k_tile;
    std::set<uint32_t> windows{asked.window};
    for (uint32_t n = low - std::min(low, kSteps); n <= low + kSteps; ++n)
        if (n >= 1 && n * k_tile <= most) windows.insert(n * k_tile);
    if (most <= 2 * asked.window) windows.insert(most);
    return windows;
}

std::set<uint32_t> strides_near(const NeighborhoodAxis& asked, uint32_t window, uint32_t q_tile) {
    constexpr uint32_t kSteps = 4;
    const uint32_t low = asked.stride / q_tile;
    std::set<uint32_t> strides;
    const auto add = [&](uint32_t stride) {
        if (stride >= 1 && stride <= window) strides.insert(stride);
    };
    add(asked.stride);
    add(window);
    for (uint32_t n = low - std::min(low, kSteps); n <= low + kSteps; ++n) add(n * q_tile);
    return strides;
}

std::vector<Choice> choices(const NeighborhoodAxis& asked, uint32_t q_tile, uint32_t k_tile) {
    constexpr size_t kMost = 3;
    std::vector<Choice> near;
    for (const uint32_t window : windows_near(asked, k_tile))
        for (const uint32_t stride : strides_near(asked, window, q_tile)) {
            const double change = std::abs(double{1} * window - asked.window) / asked.window;
            const double ratio = std::abs(std::log2(double{1} * stride / asked.stride));
            near.push_back({window, stride, change + 0.1 * ratio, 0, 0, 0, 0});
        }
    std::sort(near.begin(), near.end(), [](const Choice& a, const Choice& b) {
        return std::tie(a.distance, b.window) < std::tie(b.distance, a.window);
    });
    std::vector<Choice> found;
    for (Choice& choice : near) {
        NeighborhoodAxis axis = asked;
        axis.window = choice.window;
        axis.stride = choice.stride;
        if (!axis.perfectly_block_sparse(q_tile, k_tile)) continue;
        choice.query_boxes = (axis.length + q_tile - 1) / q_tile;
        choice.key_boxes = (axis.length + k_tile - 1) / k_tile;
        uint64_t kept = 0;
        for (uint32_t i = 0; i < axis.length; i += q_tile) {
            const TokenRange keys = axis.keys_at(i);  // of all queries of the box
            const uint32_t count = keys.end - keys.begin;
            kept += uint64_t{count} * std::min(q_tile, axis.length - i);
            choice.visited += count / k_tile;
        }
        choice.kept_share = static_cast<double>(kept) / axis.length / axis.length;
        found.push_back(choice);
        if (found.size() == kMost) break;
    }
    return found;
}

PerfectSetting product(const Neighborhood& asked, const Boxes& boxes,
                       const std::array<Choice, 3>& axis) {
    PerfectSetting setting{.cost = {boxes, 1, 1, 1, 1}, .kept_share = 1};
    const size_t first = 3 - asked.grid().shape.size();
    for (size_t i = 0; i < 3; ++i) {
        setting.cost.query_tiles *= axis[i].query_boxes;
        setting.cost.key_tiles *= axis[i].key_boxes;
        setting.cost.visited *= axis[i].visited;
        setting.kept_share *= axis[i].kept_share;
        setting.distance += axis[i].distance;
        if (i < first) continue;
        setting.options.window.push_back(axis[i].window);
        setting.options.stride.push_back(axis[i].stride);
        setting.options.dilation.push_back(asked.axes()[i].dilation);
        setting.options.causal.push_back(asked.axes()[i].causal);
    }
    setting.cost.full = setting.cost.visited;
    return setting;
}

}  // namespace

std::vector<PerfectSetting> perfect_settings(const Neighborhood& asked, TileShape tile,
                                             size_t most) {
    std::map<std::tuple<size_t, uint32_t, uint32_t>, std::vector<Choice>> known;
    const auto axis = [&](size_t i, uint32_t q, uint32_t k) -> const std::vector<Choice>& {
        const auto [it, is_new] = known.try_emplace({i, q, k});
        if (is_new) it->second = choices(asked.axes()[i], q, k);
        return it->second;
    };
    std::map<std::pair<std::vector<uint32_t>, std::vector<uint32_t>>, PerfectSetting> best;
    const auto rank = static_cast<uint32_t>(asked.grid().shape.size());
    const auto rows = [](const PerfectSetting& s) {  // long rows are read faster
        const auto& [q, k] = s.cost.boxes;
        return std::tuple(~s.cost.visited, k[2], q[2], k[1], q[1]);
    };
    const auto k_shapes = box_shapes(tile.k, rank);
    for (const auto& q : box_shapes(tile.q, rank))
        for (const auto& k : k_shapes)
            for (const Choice& z : axis(0, q[0], k[0]))
                for (const Choice& y : axis(1, q[1], k[1]))
                    for (const Choice& x : axis(2, q[2], k[2])) {
                        PerfectSetting setting = product(asked, {q, k}, {z, y, x});
                        const auto [it, is_new] = best.try_emplace(
                            {setting.options.window, setting.options.stride}, setting);
                        if (!is_new && rows(it->second) < rows(setting)) it->second = setting;
                    }
    std::vector<PerfectSetting> settings;
    for (auto& [key, setting] : best) settings.push_back(std::move(setting));
    std::stable_sort(settings.begin(), settings.end(), [&](const auto& a, const auto& b) {
        return std::tuple(a.distance, rows(b)) < std::tuple(b.distance, rows(a));
    });
    if (settings.size() > most) settings.resize(most);
    return settings;
}

}  // namespace fovea
