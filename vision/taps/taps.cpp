#include "vision/taps/taps.h"

#include <algorithm>

#include "backend/error.h"
#include "backend/ops/block_mass.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/permute.h"
#include "backend/ops/probabilities.h"
#include "backend/ops/reduce.h"

namespace fovea {
namespace {

// Mean over heads: (samples, heads, …) → (samples, 1, …).
Tensor mean_heads(vk::Stream& stream, const Tensor& x) {
    Shape shape = x.shape();
    shape[1] = 1;
    return mean_tokens(stream, x.reshape({x.dim(0), x.dim(1), -1})).reshape(shape);
}

// Σ over queries of each key's share: the mean over all queries, a block, times their number.
Tensor column_sums(vk::Stream& stream, const Tensor& q, const Tensor& k, const Pattern& pattern) {
    const auto heads_first = [&](const Tensor& x) { return permute(stream, x, {0, 2, 1, 3}); };
    const auto tokens = static_cast<uint32_t>(q.dim(1));
    const Tensor mean = block_mass(stream, heads_first(q), heads_first(k), pattern,
                                   {.block_q = tokens, .block_k = 1});
    return linear_combination(stream, {{static_cast<float>(tokens), mean}})
        .reshape({q.dim(0), q.dim(2), q.dim(1)});
}

}  // namespace

Taps::Taps(const Dit& dit, const TapPlace& place, TapOptions options)
    : place_(place),
      options_(std::move(options)),
      layers_(dit.config().layers),
      patterns_(dit.patterns(place.grid)) {
    require(place.steps >= 1 && place.samples >= 1 && place.first >= 0,
            "[taps] {} samples from {} over {} steps found, expected at least one of each",
            place.samples, place.first, place.steps);
    for (const int64_t layer : options_.layers)
        require(layer >= 0 && layer < layers_, "[taps] layer {} found, the model has 0 to {}",
                layer, layers_ - 1);
    const auto& grid = place.grid;
    const auto number = [](int64_t n) { return static_cast<uint64_t>(n); };
    const uint64_t layers = options_.layers.empty() ? number(layers_) : options_.layers.size();
    const uint64_t heads = options_.by_head ? number(dit.config().heads) : 1;
    const uint64_t kept =
        (options_.by_layer ? layers : 1) * (options_.by_step ? number(place.steps) : 1);
    const uint64_t each = number(place.samples * grid[0] * grid[1] * grid[2]) * heads *
                          ((options_.words ? place.length : 0) + (options_.received ? 1 : 0)) *
                          bytes_of(DType::f32);
    require(kept * each <= options_.budget,
            "[taps] {} maps of {:.1f} KiB found, {:.1f} MiB in all, where {:.1f} MiB are granted: "
            "read fewer layers or steps, or keep their means",
            kept, static_cast<double>(each) / 1024, static_cast<double>(kept * each) / (1 << 20),
            static_cast<double>(options_.budget) / (1 << 20));
}

bool Taps::reads(int64_t layer) const {
    const auto& layers = options_.layers;
    return layers.empty() || std::find(layers.begin(), layers.end(), layer) != layers.end();
}

void Taps::add(vk::Stream& stream, Sums& sums, int step, int64_t layer, Tensor values) {
    if (!options_.by_head) values = mean_heads(stream, values);
    Sum& sum = sums[{options_.by_step ? step : -1, options_.by_layer ? layer : -1}];
    sum.values =
        sum.count == 0 ? values : linear_combination(stream, {{1, sum.values}, {1, values}});
    ++sum.count;
}

DitHooks Taps::around(DitHooks hooks, int step) {
    require(step >= 0 && step < place_.steps, "[taps] step {} of {} found", step, place_.steps);
    const auto own = [this](const Tensor& x) { return x.slice(place_.first, place_.samples); };
    if (options_.words)
        hooks.cross = [this, step, own, inner = hooks.cross](vk::Stream& stream, int64_t layer,
                                                             const Tensor& q, const Tensor& k,
                                                             const Tensor& v) {
            if (reads(layer))
                add(stream, words_, step, layer, probabilities(stream, own(q), own(k)));
            return inner ? inner(stream, layer, q, k, v) : attend(stream, q, k, v, dense());
        };
    if (options_.received) {
        if (!hooks.attention) hooks.attention = attention_by(patterns_);
        hooks.attention = [this, step, own, inner = hooks.attention](
                              vk::Stream& stream, int64_t layer, const Tensor& q, const Tensor& k,
                              const Tensor& v) {
            if (reads(layer))
                add(stream, received_, step, layer,
                    column_sums(stream, own(q), own(k), patterns_[static_cast<size_t>(layer)]));
            return inner(stream, layer, q, k, v);
        };
    }
    return hooks;
}

std::vector<Taps::Map> Taps::means(vk::Stream& stream, const Sums& sums) {
    std::vector<Map> result;
    for (const auto& [key, sum] : sums)
        result.push_back(
            {key.first, key.second,
             linear_combination(stream, {{1.0f / static_cast<float>(sum.count), sum.values}})});
    return result;
}

}  // namespace fovea
