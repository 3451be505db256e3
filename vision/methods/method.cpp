#include "vision/methods/method.h"

#include <algorithm>

#include "backend/error.h"
#include "backend/ops/range_mass.h"
#include "backend/ops/rescale.h"
#include "backend/patterns/planner.h"
#include "vision/layers.h"

namespace fovea {
namespace {

/// Mean of the shares of all calls.
class Shares {
  public:
    void add(double share) {
        sum_ += share;
        ++count_;
    }
    double mean() const { return count_ == 0 ? 0 : sum_ / count_; }

  private:
    double sum_ = 0, count_ = 0;
};

/// kept_share() of patterns, once for all clips: a plan takes a millisecond and more. Bounded.
struct KeptShares {
    static constexpr size_t kMost = 512;
    std::map<std::pair<std::string, int64_t>, double> shares;
};

double share_of(vk::Stream& stream, const Pattern& pattern, const SelfAttention& x) {
    auto& shares = stream.device().cache<KeptShares>().shares;
    const int64_t tokens = x.q.dim(1);
    if (shares.size() >= KeptShares::kMost) shares.clear();
    const auto [it, is_new] = shares.try_emplace({pattern.key(), tokens});
    if (is_new) it->second = kept_share(pattern, static_cast<uint32_t>(tokens));
    return it->second;
}

void refuse_perturbed(const SelfAttention& x, const char* method) {
    require(!x.perturb,
            "[method] {} found beside guidance by strengths of single heads, expected a pattern",
            method);
}

class ByPattern final : public AttentionMethod {
  public:
    explicit ByPattern(PatternSchedule schedule) : schedule_(std::move(schedule)) {}

    void begin_step(int step, int steps) override {
        step_ = step;
        steps_ = steps;
    }
    Tensor attention(vk::Stream& stream, const SelfAttention& x) override {
        const Pattern pattern = schedule_(x.layer, step_, steps_);
        shares_.add(share_of(stream, pattern, x));
        return attend(stream, x.q, x.k, x.v, pattern, {.perturb = x.perturb});
    }
    double density(vk::Stream&) override { return shares_.mean(); }
    bool perturbs() const override { return true; }

  private:
    PatternSchedule schedule_;
    int step_ = 0, steps_ = 1;
    Shares shares_;
};

class Rectifying final : public AttentionMethod {
  public:
    explicit Rectifying(const RectifiedOptions& options) : options_(options) {}

    void begin_step(int, int) override {}
    Tensor attention(vk::Stream& stream, const SelfAttention& x) override {
        refuse_perturbed(x, "rectified");
        Tensor kept;
        RectifiedOptions options = options_;
        options.kept = &kept;
        const Tensor o = rectified_attention(stream, x.q, x.k, x.v, options,
                                             {.layout = HeadLayout::tokens_first});
        kept_.push_back(kept);
        return o;
    }
    double density(vk::Stream& stream) override {
        for (const Tensor& kept : kept_) {
            std::vector<int32_t> counts(static_cast<size_t>(kept.numel()));
            stream.download(read(kept), std::as_writable_bytes(std::span(counts)));
            const auto blocks = static_cast<double>(kept.dim(2));
            double sum = 0;
            for (const int32_t count : counts) sum += count / blocks;
            shares_.add(sum / static_cast<double>(counts.size()));
        }
        kept_.clear();
        return shares_.mean();
    }

  private:
    RectifiedOptions options_;
    std::vector<Tensor> kept_;
    Shares shares_;
};

class Reusing final : public AttentionMethod {
  public:
    Reusing(PatternSchedule schedule, const ReuseOptions& options)
        : schedule_(std::move(schedule)), options_(options) {
        require(options.every >= 1, "[reuse] a dense step every 1 or more steps expected, found {}",
                options.every);
    }

    void begin_step(int step, int steps) override {
        step_ = step;
        steps_ = steps;
    }
    Tensor attention(vk::Stream& stream, const SelfAttention& x) override {
        refuse_perturbed(x, "rettention");
        const Pattern pattern = schedule_(x.layer, step_, steps_);
        const double share = share_of(stream, pattern, x);
        const AttentionOptions layout{.layout = HeadLayout::tokens_first};
        State& state = states_[x.layer];
        const int age = step_ - state.step;
        if (state.residual && age < options_.every && age >= 0) {
            shares_.add(share);
            const Tensor o = attend(stream, x.q, x.k, x.v, pattern);
            return rescale(stream, o, state.ratio, state.residual,
                           {.shift = options_.growth * static_cast<float>(age),
                            .layout = HeadLayout::tokens_first});
        }
        shares_.add(1 + share);
        Tensor lse_all, lse_seen;
        const Tensor all = attend(stream, x.q, x.k, x.v, dense(), {.lse = &lse_all});
        const Tensor seen = attend(stream, x.q, x.k, x.v, pattern, {.lse = &lse_seen});
        const Tensor ratio = range_mass(stream, lse_seen, lse_all);
        state = {ratio,
                 rescale(stream, seen, ratio, all,
                         {.subtract = true, .layout = HeadLayout::tokens_first}),
                 step_};
        return all;
    }
    double density(vk::Stream&) override { return shares_.mean(); }
    bool remembers() const override { return true; }

  private:
    struct State {
        Tensor ratio;     ///< (batch, heads, tokens) f32
        Tensor residual;  ///< as o
        int step = 0;     ///< at which they were taken
    };
    PatternSchedule schedule_;
    ReuseOptions options_;
    int step_ = 0, steps_ = 1;
    std::map<int64_t, State> states_;
    Shares shares_;
};

class WithDense final : public AttentionMethod {
  public:
    WithDense(std::unique_ptr<AttentionMethod> method, int dense_steps,
              std::vector<int> dense_layers)
        : method_(std::move(method)),
          dense_steps_(dense_steps),
          dense_layers_(std::move(dense_layers)) {}

    void begin_step(int step, int steps) override {
        step_ = step;
        method_->begin_step(step, steps);
    }
    Tensor attention(vk::Stream& stream, const SelfAttention& x) override {
        if (step_ >= dense_steps_ &&
            std::find(dense_layers_.begin(), dense_layers_.end(), x.layer) == dense_layers_.end()) {
            ++sparse_;
            return method_->attention(stream, x);
        }
        ++dense_;
        return attend(stream, x.q, x.k, x.v, dense(), {.perturb = x.perturb});
    }
    bool remembers() const override { return method_->remembers(); }
    bool perturbs() const override { return method_->perturbs(); }
    double density(vk::Stream& stream) override {
        const double all = dense_ + sparse_;
        return all == 0 ? 0 : (dense_ + sparse_ * method_->density(stream)) / all;
    }

  private:
    std::unique_ptr<AttentionMethod> method_;
    int dense_steps_, step_ = 0;
    std::vector<int> dense_layers_;
    double dense_ = 0, sparse_ = 0;  ///< calls
};

}  // namespace

std::unique_ptr<AttentionMethod> pattern_method(PatternSchedule schedule) {
    return std::make_unique<ByPattern>(std::move(schedule));
}

std::unique_ptr<AttentionMethod> pattern_method(const Pattern& pattern) {
    return pattern_method([pattern](int64_t, int, int) { return pattern; });
}

std::unique_ptr<AttentionMethod> rectified_method(const RectifiedOptions& options) {
    return std::make_unique<Rectifying>(options);
}

std::unique_ptr<AttentionMethod> reuse_method(PatternSchedule schedule,
                                              const ReuseOptions& options) {
    return std::make_unique<Reusing>(std::move(schedule), options);
}

std::unique_ptr<AttentionMethod> with_dense(std::unique_ptr<AttentionMethod> method,
                                            int dense_steps, std::vector<int> dense_layers) {
    return std::make_unique<WithDense>(std::move(method), dense_steps, std::move(dense_layers));
}

double kept_share(const Pattern& pattern, uint32_t tokens) {
    const TileShape grain = pattern.granularity();
    const Plan made = plan(pattern, grain.q > 0 ? grain : TileShape{16, 16}, tokens, tokens);
    double sum = 0;
    for (uint32_t h = 0; h < std::max<size_t>(1, made.list_of_head.size()); ++h)
        sum += made.lists[made.list_of_head.empty() ? 0 : made.list_of_head[h]].kept_share();
    return sum / static_cast<double>(std::max<size_t>(1, made.list_of_head.size()));
}

}  // namespace fovea
