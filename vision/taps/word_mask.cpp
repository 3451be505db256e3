#include "vision/taps/word_mask.h"

#include <algorithm>
#include <numeric>

#include "backend/error.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/permute.h"

namespace fovea {
namespace {

constexpr int64_t kValues = 8;  // columns of v: the fewest that attention takes

}  // namespace

std::vector<float> word_mask(const std::vector<float>& heat, int64_t rows, int64_t columns,
                             const WordMaskOptions& options) {
    const int64_t tokens = options.frames * rows * columns;
    require(std::ssize(heat) == tokens && !heat.empty(),
            "[mask] {} values found, expected {}×{}×{}", heat.size(), options.frames, rows,
            columns);
    const auto [least, most] = std::minmax_element(heat.begin(), heat.end());
    const float low = *least, range = *most - low;
    std::vector<float> mask(heat.size(), 0);
    if (range <= 0) return mask;
    for (int64_t at = 0; at < tokens; ++at) {
        if ((heat[static_cast<size_t>(at)] - low) / range <= options.threshold) continue;
        const int64_t row = at / columns % rows, column = at % columns, grow = options.grow;
        const int64_t frame = at - row * columns - column;
        for (int64_t y = std::max<int64_t>(0, row - grow); y <= std::min(rows - 1, row + grow); ++y)
            for (int64_t x = std::max<int64_t>(0, column - grow);
                 x <= std::min(columns - 1, column + grow); ++x)
                mask[static_cast<size_t>(frame + y * columns + x)] = 1;
    }
    return mask;
}

HeatSpread::HeatSpread(const Dit& dit, const DitGrid& grid, int64_t sample)
    : patterns_(dit.patterns(grid)), layers_(dit.config().global_layers), sample_(sample) {
    if (grid[0] > 1) {  // of a clip every layer is dense
        layers_.resize(patterns_.size());
        std::iota(layers_.begin(), layers_.end(), 0);
    }
    require(!layers_.empty(), "[mask] a model without dense layers cannot spread a map");
}

DitHooks HeatSpread::around(DitHooks hooks) {
    kept_.clear();
    if (!hooks.attention) hooks.attention = attention_by(patterns_);
    hooks.attention = [this, inner = hooks.attention](vk::Stream& stream, int64_t layer,
                                                      const Tensor& q, const Tensor& k,
                                                      const Tensor& v) {
        if (std::find(layers_.begin(), layers_.end(), layer) != layers_.end())
            kept_.emplace_back(q.slice(sample_, 1), k.slice(sample_, 1));
        return inner(stream, layer, q, k, v);
    };
    return hooks;
}

std::vector<float> HeatSpread::spread(vk::Stream& stream, const std::vector<float>& heat, int times,
                                      float keep) const {
    require(!kept_.empty(), "[mask] no forward pass was read");
    const int64_t tokens = kept_[0].first.dim(1), heads = kept_[0].first.dim(2);
    require(std::ssize(heat) == tokens, "[mask] {} values found for {} tokens", heat.size(),
            tokens);
    std::vector<float> now = heat;
    for (int i = 0; i < times; ++i) {
        const Tensor values = strided_copy(stream, upload(stream, now, {tokens}, DType::f32),
                                           {1, tokens, heads, kValues}, {0, 1, 0, 0});
        std::vector<float> next(now.size(), 0);
        const float share = (1 - keep) / static_cast<float>(std::ssize(kept_) * heads);
        for (const auto& [q, k] : kept_) {
            const auto o =
                to_host(stream, attend(stream, q, k, convert(stream, values, q.dtype()), dense()));
            for (size_t at = 0; at < o.size(); at += kValues)
                next[at / kValues / static_cast<size_t>(heads)] += share * o[at];
        }
        for (size_t at = 0; at < now.size(); ++at) now[at] = keep * now[at] + next[at];
    }
    return now;
}

}  // namespace fovea
