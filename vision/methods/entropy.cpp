#include "vision/methods/entropy.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "backend/ops/elementwise.h"
#include "vision/methods/method.h"
#include "vision/models/autoencoder.h"

namespace fovea {
namespace {

/// Keys of a query in each layer, in the mean.
std::vector<double> keys_of(const Dit& dit, const DitGrid& grid) {
    const auto tokens = static_cast<uint32_t>(grid[0] * grid[1] * grid[2]);
    std::map<std::string, double> known;
    std::vector<double> keys;
    for (const Pattern& pattern : dit.patterns(grid)) {
        const auto [it, is_new] = known.try_emplace(pattern.key());
        if (is_new) it->second = kept_share(pattern, tokens) * tokens;
        keys.push_back(it->second);
    }
    return keys;
}

DitGrid trained_grid(const DitConfig& config, bool clip) {
    const bool by_clips = clip && config.frames > 0;
    const int64_t side =
        (by_clips ? config.clip_size : config.size) / (Autoencoder::kDown * config.patch);
    return {by_clips ? config.frames : 1, side, side};
}

}  // namespace

std::vector<float> entropy_factors(const Dit& dit, const DitGrid& grid) {
    const auto now = keys_of(dit, grid),
               trained = keys_of(dit, trained_grid(dit.config(), grid[0] > 1));
    std::vector<float> factors;
    for (size_t i = 0; i < now.size(); ++i) {
        const double factor =
            std::sqrt(std::log(std::max(now[i], 2.0)) / std::log(std::max(trained[i], 2.0)));
        factors.push_back(std::abs(factor - 1) < 1e-6 ? 1 : static_cast<float>(factor));
    }
    return factors;
}

DitHooks with_entropy_scale(const DitHooks& base, std::vector<float> factors) {
    DitHooks hooks = base;
    const auto scaled = [factors](vk::Stream& stream, int64_t layer, const Tensor& q) {
        const float factor = factors.at(static_cast<size_t>(layer));
        return factor == 1 ? q : linear_combination(stream, {{factor, q}});
    };
    hooks.attention = [base, scaled](vk::Stream& stream, int64_t layer, const Tensor& q,
                                     const Tensor& k, const Tensor& v) {
        return base.attention(stream, layer, scaled(stream, layer, q), k, v);
    };
    if (base.perturbed)
        hooks.perturbed = [base, scaled](vk::Stream& stream, int64_t layer, const Tensor& q,
                                         const Tensor& k, const Tensor& v, const Tensor& u) {
            return base.perturbed(stream, layer, scaled(stream, layer, q), k, v, u);
        };
    return hooks;
}

}  // namespace fovea
