#include "apps/bench/overlap.h"

#include <fmt/format.h>

#include <algorithm>

namespace fovea::apps::bench {

std::string Mean::text() const {
    return count > 0 ? fmt::format("{:.3f}", value()) : "";
}

std::string Mean::percent() const {
    return count > 0 ? fmt::format("{:.1f} %", 100 * value()) : "";
}

double iou(const Mask& a, const Mask& b) {
    double both = 0, either = 0;
    for (size_t i = 0; i < a.hole.size(); ++i) {
        both += a.hole[i] && b.hole[i];
        either += a.hole[i] || b.hole[i];
    }
    return either > 0 ? both / either : 0;
}

Pixel innermost(const Mask& mask) {
    const int wide = mask.width + 2;  // with an edge around the picture
    const auto place = [&](int x, int y) {
        return static_cast<size_t>(y + 1) * static_cast<size_t>(wide) + static_cast<size_t>(x + 1);
    };
    std::vector<int> depth(static_cast<size_t>(wide) * static_cast<size_t>(mask.height + 2));
    const auto least = [&](int x, int y, int way) {
        return std::min({depth[place(x - way, y)] + 3, depth[place(x, y - way)] + 3,
                         depth[place(x - 1, y - way)] + 4, depth[place(x + 1, y - way)] + 4});
    };
    for (int y = 0; y < mask.height; ++y)
        for (int x = 0; x < mask.width; ++x)
            if (mask.at(x, y)) depth[place(x, y)] = least(x, y, 1);
    Pixel best;
    int deepest = 0;
    for (int y = mask.height - 1; y >= 0; --y)
        for (int x = mask.width - 1; x >= 0; --x) {
            if (!mask.at(x, y)) continue;
            int& own = depth[place(x, y)];
            own = std::min(own, least(x, y, -1));
            if (own > deepest) {
                deepest = own;
                best = {x, y};
            }
        }
    return best;
}

}  // namespace fovea::apps::bench
