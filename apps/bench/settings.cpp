#include "apps/bench/settings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

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

struct Found {
    Pattern pattern;
    std::string note;
    double share;
};

/// The radial pattern of the largest share up to `density`: its decay, its block and what it thins.
std::optional<Found> radial_at(const Three& grid, double density) {
    const uint32_t tokens = grid[0] * grid[1] * grid[2], frame = grid[1] * grid[2];
    const uint32_t block = block_for(tokens);
    std::optional<Found> best;
    for (const uint32_t side : {2 * block, block, block / 2})
        for (const uint32_t thinning : {side, 2 * side, 4 * side, 8 * side})
            for (double decay = 4; decay > 0.05; decay /= 1.3) try {
                    const Radial pattern = radial({.frames = grid[0],
                                                   .tokens_per_frame = frame,
                                                   .block = side,
                                                   .decay = decay,
                                                   .thinning = thinning});
                    const double share = pattern.block_mask().density();
                    if (share > density || (best && share <= best->share)) continue;
                    best = Found{pattern,
                                 fmt::format("radial:block={}:decay={:.3g}:thinning={}", side,
                                             decay, thinning),
                                 share};
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

double MethodBudget::sparse() const {
    return (density * steps - dense_steps) / std::max(steps - dense_steps, 1);
}

std::vector<MethodSetting> method_settings(const Three& grid, const MethodBudget& budget,
                                           const Calibrator* calibrator) {
    const Grid tokens{{grid[0], grid[1], grid[2]}};
    const double sparse = budget.sparse();
    std::vector<MethodSetting> settings;
    if (sparse <= 0) return settings;
    const int first = budget.dense_steps;
    const auto add = [&](const char* name, const std::string& note, auto make) {
        settings.push_back({name, note, budget.density,
                            [make, first]() { return with_dense(make(), first, {}); }});
    };
    if (const auto found = radial_at(grid, sparse))
        add("radial", found->note, [found] { return pattern_method(found->pattern); });
    const auto window_of = [&](double share, bool all_frames) {
        return window_at(grid, share, all_frames);
    };
    const auto window = window_of(sparse, false);
    const Pattern near = neighborhood(tokens, {.window = window});
    add("neighborhood", fmt::format("neighborhood:{}", fmt::join(window, "x")),
        [near] { return pattern_method(near); });
    const float from = static_cast<float>(first) / static_cast<float>(budget.steps);
    if (calibrator) {
        const PatternSchedule chosen = calibrator->choose(sparse, from).schedule();
        add("reordered", "calibrated", [chosen] { return pattern_method(chosen); });
    }
    const uint32_t block = block_for(tokens.tokens());
    const double blocks = std::ceil(static_cast<double>(tokens.tokens()) / block);
    const RectifiedOptions rectified{
        .grid = tokens,
        .block = block,
        .keep = static_cast<float>(std::floor(sparse * blocks + 1e-6) / blocks),
        .mass = 0};
    add("rectified", fmt::format("rectified:keep={:.3f}:mass=0:block={}", rectified.keep, block),
        [rectified] { return rectified_method(rectified); });

    // A dense step of every so many, and the pattern beside it: a third of the budget.
    ReuseOptions reuse;
    reuse.every = std::max(2, static_cast<int>(std::lround(3 / sparse)));
    const int rest = budget.steps - first;
    const int refreshes = (rest + reuse.every - 1) / reuse.every;
    const double share = (sparse * rest - refreshes) / rest;
    if (share > 0.02) {
        if (calibrator) {
            const PatternSchedule masks = calibrator->choose(share, from).schedule();
            add("Re-ttention of reordered", fmt::format("every={}, calibrated", reuse.every),
                [masks, reuse] { return reuse_method(masks, reuse); });
        }
        const auto along = window_of(share, true);
        const Pattern columns = neighborhood(tokens, {.window = along});
        add("Re-ttention",
            fmt::format("rettention:every={}:of=neighborhood:{}", reuse.every,
                        fmt::join(along, "x")),
            [columns, reuse] {
                return reuse_method([columns](int64_t, int, int) { return columns; }, reuse);
            });
    }
    return settings;
}

}  // namespace fovea::apps::bench
