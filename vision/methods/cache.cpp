#include "vision/methods/cache.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "backend/error.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/reduce.h"

namespace fovea {
namespace {

Tensor difference(vk::Stream& stream, const Tensor& a, const Tensor& b) {
    return linear_combination(stream, {{1, a}, {-1, b}});
}

class RunCache final : public FeatureCache {
  public:
    RunCache(int64_t layers, const RunCacheOptions& options)
        : layers_(layers), every_(options.every), first_(options.first) {
        require(every_ >= 1 && first_ >= 0,
                "[cache] every of at least 1 and first of at least 0 expected, found {} and {}",
                every_, first_);
        for (const int64_t layer : options.layers) {
            require(layer >= 0 && layer < layers && (runs_.empty() || layer > runs_.back().last),
                    "[cache] ascending layers below {} expected, found {}", layers, layer);
            if (!runs_.empty() && runs_.back().last + 1 == layer)
                runs_.back().last = layer;
            else
                runs_.push_back({layer, layer, {}, {}});
        }
    }

    void begin_step(int step, int) override {
        ++evaluations_;
        skips_ = step >= first_ && (step - first_) % every_ != 0;
        if (skips_)
            for (const Run& run : runs_) skipped_ += static_cast<double>(run.last - run.first + 1);
    }

    Tensor part(vk::Stream& stream, const DitPart& part) override {
        if (part.kind == DitPart::Kind::blocks) return part.compute();
        const auto run = std::find_if(runs_.begin(), runs_.end(), [&](const Run& r) {
            return part.layer >= r.first && part.layer <= r.last;
        });
        if (run == runs_.end()) return part.compute();
        const bool begins = part.layer == run->first && part.kind == DitPart::Kind::attention;
        const bool ends = part.layer == run->last && part.kind == DitPart::Kind::mlp;
        if (skips_) return begins ? add(stream, part.x, run->residual) : part.x;
        if (begins) run->in = part.x;
        const Tensor y = part.compute();
        if (ends) {
            run->residual = difference(stream, y, run->in);
            run->in = {};
        }
        return y;
    }

    double computed() const override {
        return evaluations_ == 0 ? 1 : 1 - skipped_ / (evaluations_ * static_cast<double>(layers_));
    }

  private:
    struct Run {
        int64_t first, last;  ///< layers
        Tensor in, residual;  ///< (batch, tokens, width)
    };
    int64_t layers_;
    int every_, first_;
    std::vector<Run> runs_;
    bool skips_ = false;
    double evaluations_ = 0, skipped_ = 0;
};

/// √(mean of squares)
double norm(vk::Stream& stream, const Tensor& x) {
    const Statistics s = statistics(stream, x);
    return std::hypot(s.mean, s.stddev);
}

class ThresholdCache final : public FeatureCache {
  public:
    explicit ThresholdCache(double threshold) : threshold_(threshold) {
        require(threshold >= 0, "[cache] a threshold of at least 0 expected, found {}", threshold);
    }

    void begin_step(int step, int steps) override { must_ = step == 0 || step + 1 == steps; }

    Tensor part(vk::Stream& stream, const DitPart& part) override {
        if (part.kind != DitPart::Kind::blocks) return part.compute();
        ++evaluations_;
        const Tensor modulated = part.modulated();
        if (before_)
            change_ += norm(stream, difference(stream, modulated, before_)) / norm(stream, before_);
        before_ = modulated;
        if (!must_ && residual_ && change_ < threshold_) return add(stream, part.x, residual_);
        ++computed_;
        change_ = 0;
        const Tensor y = part.compute();
        residual_ = difference(stream, y, part.x);
        return y;
    }

    double computed() const override { return evaluations_ == 0 ? 1 : computed_ / evaluations_; }

  private:
    double threshold_, change_ = 0, evaluations_ = 0, computed_ = 0;
    bool must_ = true;
    Tensor before_, residual_;
};

}  // namespace

std::unique_ptr<FeatureCache> run_cache(int64_t layers, const RunCacheOptions& options) {
    return std::make_unique<RunCache>(layers, options);
}

std::unique_ptr<FeatureCache> threshold_cache(double threshold) {
    return std::make_unique<ThresholdCache>(threshold);
}

}  // namespace fovea
