#include "apps/bench/settings.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "backend/error.h"
#include "backend/patterns/neighborhood.h"
#include "backend/patterns/radial.h"
#include "vision/methods/parse.h"

namespace fovea::apps::bench {
namespace {

using Three = std::array<uint32_t, 3>;

/// The radial pattern of the largest share up to `density`: its decay, its block and what it thins.
std::optional<Pattern> radial_at(const Three& grid, double density) {
    const uint32_t tokens = grid[0] * grid[1] * grid[2], frame = grid[1] * grid[2];
    const uint32_t block = block_for(tokens);
    std::optional<Pattern> best;
    double most = 0;
    for (const uint32_t side : {2 * block, block, block / 2})
        for (const uint32_t thinning : {side, 2 * side, 4 * side})
            for (double decay = 4; decay > 0.05; decay /= 1.3) try {
                    const Radial pattern = radial({.frames = grid[0],
                                                   .tokens_per_frame = frame,
                                                   .block = side,
                                                   .decay = decay,
                                                   .thinning = thinning});
                    const double share = pattern.block_mask().density();
                    if (share > density || share <= most) continue;
                    most = share;
                    best = pattern;
                } catch (const Error&) {  // some queries would see no key
                }
    return best;
}

}  // namespace

std::vector<uint32_t> window_at(const Three& grid, double density, bool all_frames) {
    std::vector<uint32_t> best;
    double best_score = -1;
    for (uint32_t t = all_frames ? grid[0] : 1; t <= grid[0]; ++t)
        for (uint32_t y = 1; y <= grid[1]; ++y)
            for (uint32_t x = 1; x <= grid[2]; ++x) {
                const std::array shares{double(t) / grid[0], double(y) / grid[1],
                                        double(x) / grid[2]};
                const double share = shares[0] * shares[1] * shares[2];
                if (share > density) continue;
                const auto [least, most] =
                    std::minmax_element(shares.begin() + all_frames, shares.end());
                const double score = share - 0.2 * (*most - *least);
                if (score <= best_score) continue;
                best_score = score;
                best = {t, y, x};
            }
    require(!best.empty(), "[bench] no window at a density of {}", density);
    return best;
}

std::vector<MethodSetting> method_settings(const Three& grid, double density,
                                           const Calibrator& calibrator) {
    const Grid tokens{{grid[0], grid[1], grid[2]}};
    std::vector<MethodSetting> settings;
    const auto add = [&](const char* name, auto make) {
        settings.push_back({name, density, make});
    };
    if (const auto pattern = radial_at(grid, density))
        add("radial", [pattern] { return pattern_method(*pattern); });
    const Pattern window = neighborhood(tokens, {.window = window_at(grid, density, false)});
    add("neighborhood", [window] { return pattern_method(window); });
    const PatternSchedule chosen = calibrator.choose(density).schedule();
    add("reordered", [chosen] { return pattern_method(chosen); });
    const RectifiedOptions rectified{.grid = tokens,
                                     .block = block_for(tokens.tokens()),
                                     .keep = static_cast<float>(density),
                                     .mass = 0};
    add("rectified", [rectified] { return rectified_method(rectified); });
    const Pattern columns = neighborhood(tokens, {.window = window_at(grid, density, true)});
    add("Re-ttention",
        [columns] { return reuse_method([columns](int64_t, int, int) { return columns; }, {}); });
    return settings;
}

}  // namespace fovea::apps::bench
