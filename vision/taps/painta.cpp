#include "vision/taps/painta.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/error.h"

namespace fovea {

std::vector<float> painta_factors(const std::vector<float>& shares, int64_t rows, int64_t columns) {
    require(std::ssize(shares) == rows * columns && !shares.empty(),
            "[painta] {} shares found, expected {}×{}", shares.size(), rows, columns);
    // exp(−d² / (2σ²)) at one token's distance; at the edges the rest of the weights.
    const float side = std::exp(-2.0f);
    std::vector<float> blurred(shares.size());
    for (int64_t y = 0; y < rows; ++y)
        for (int64_t x = 0; x < columns; ++x) {
            float sum = 0, weights = 0;
            for (int64_t v = std::max<int64_t>(0, y - 1); v <= std::min(rows - 1, y + 1); ++v)
                for (int64_t u = std::max<int64_t>(0, x - 1); u <= std::min(columns - 1, x + 1);
                     ++u) {
                    const float weight = (u == x ? 1 : side) * (v == y ? 1 : side);
                    sum += weight * shares[static_cast<size_t>(v * columns + u)];
                    weights += weight;
                }
            blurred[static_cast<size_t>(y * columns + x)] = sum / weights;
        }
    std::vector<float> sorted = blurred;
    std::sort(sorted.begin(), sorted.end());
    const size_t half = sorted.size() / 2;
    const float median =
        sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
    const float most = sorted.back();
    for (float& value : blurred)
        value = most > 0 ? std::clamp((value - median) / most, 0.0f, 1.0f) : 0;
    return blurred;
}

Painta::Painta(vk::Stream& stream, const Dit& dit, const DitGrid& grid, std::vector<Sample> samples,
               float until)
    : stream_(stream),
      dit_(dit),
      grid_(grid),
      samples_(std::move(samples)),
      until_(until),
      patterns_(dit.patterns(grid)),
      factors_(samples_.size()),
      tables_(samples_.size()) {
    const auto tokens = static_cast<size_t>(grid[0] * grid[1] * grid[2]);
    require(!samples_.empty(), "[painta] no sample given");
    for (const Sample& sample : samples_) {
        require(sample.hole.size() == tokens, "[painta] {} tokens found, expected {}",
                sample.hole.size(), tokens);
        query_labels_.push_back(upload(stream,
                                       std::vector<int32_t>(sample.hole.begin(), sample.hole.end()),
                                       {static_cast<int64_t>(tokens)}));
    }
    std::vector<int32_t> places(tokens);
    std::iota(places.begin(), places.end(), 0);
    key_labels_ = upload(stream, places, {static_cast<int64_t>(tokens)});
}

Tensor Painta::attend_rows(int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v,
                           const Tensor& strengths) const {
    const Pattern& pattern = patterns_.at(static_cast<size_t>(layer));
    const Tensor o = empty(stream_.device(), q.shape(), q.dtype());
    for (int64_t row = 0; row < q.dim(0); ++row) {
        const size_t sample = static_cast<size_t>(row) % samples_.size();
        AttentionOptions options{.perturb = strengths};
        if (tables_[sample]) {
            options.q_labels = query_labels_[sample];
            options.k_labels = key_labels_;
            options.multipliers = tables_[sample];
        }
        const Tensor part =
            attend(stream_, q.slice(row, 1), k.slice(row, 1), v.slice(row, 1), pattern, options);
        stream_.copy(read(part), write(o.slice(row, 1)));
    }
    return o;
}

DitHooks Painta::hooks(float t) {
    const bool acts = t > until_;
    for (size_t i = 0; i < samples_.size(); ++i) {
        factors_[i].clear();
        tables_[i] = {};
    }
    if (acts && taps_) {
        const auto tokens = static_cast<size_t>(grid_[0] * grid_[1] * grid_[2]);
        const Tensor maps = taps_->words(stream_).at(0).values;
        const auto length = static_cast<size_t>(maps.dim(3));
        const auto values = to_host(stream_, maps);
        for (size_t i = 0; i < samples_.size(); ++i) {
            const Sample& sample = samples_[i];
            std::vector<float> shares(tokens, 0);
            for (size_t token = 0; token < tokens; ++token)
                for (const size_t word : sample.words)
                    shares[token] += values[(i * tokens + token) * length + word];
            factors_[i] = painta_factors(shares, grid_[0] * grid_[1], grid_[2]);
            std::vector<float> table(2 * tokens, 1);
            for (size_t token = 0; token < tokens; ++token)
                if (!sample.hole[token]) table[tokens + token] = factors_[i][token];
            tables_[i] = upload(stream_, table, {2, static_cast<int64_t>(tokens)}, DType::f32);
        }
    }
    DitHooks hooks = hooks_by(patterns_);
    if (factors_[0].size() > 0) {
        hooks.perturbed = [this](vk::Stream&, int64_t layer, const Tensor& q, const Tensor& k,
                                 const Tensor& v, const Tensor& strengths) {
            return attend_rows(layer, q, k, v, strengths);
        };
        hooks.attention = [this](vk::Stream&, int64_t layer, const Tensor& q, const Tensor& k,
                                 const Tensor& v) { return attend_rows(layer, q, k, v, {}); };
    }
    taps_.reset();
    if (!acts) return hooks;
    taps_ = std::make_unique<Taps>(
        dit_, TapPlace{.grid = grid_, .first = 0, .samples = std::ssize(samples_)});
    return taps_->around(std::move(hooks), 0);
}

}  // namespace fovea
