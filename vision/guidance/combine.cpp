#include "vision/guidance/combine.h"

#include <cmath>
#include <functional>

#include "backend/ops/elementwise.h"
#include "backend/ops/reduce.h"

namespace fovea {
namespace {

/// ⟨a, b⟩ of each sample. Waits.
std::vector<double> products(vk::Stream& stream, const Tensor& a, const Tensor& b) {
    const int64_t samples = a.dim(0), each = a.numel() / samples;
    int64_t width = 256;  // sums side by side
    while (each % width != 0) width /= 2;
    const auto means = to_host(
        stream,
        mean_tokens(stream, multiply(stream, a, b).reshape({samples, each / width, width})));
    std::vector<double> sums(static_cast<size_t>(samples));
    for (size_t i = 0; i < means.size(); ++i)
        sums[i / static_cast<size_t>(width)] +=
            double{means[i]} * static_cast<double>(each / width);
    return sums;
}

/// A linear combination whose coefficients differ from sample to sample.
Tensor combine_samples(vk::Stream& stream, const Tensor& like,
                       const std::function<std::vector<Term>(int64_t)>& terms_of) {
    const Tensor y = empty(stream.device(), like.shape(), like.dtype());
    for (int64_t i = 0; i < like.dim(0); ++i) {
        std::vector<Term> terms = terms_of(i);
        for (Term& term : terms) term.x = term.x.slice(i, 1);
        stream.copy(read(linear_combination(stream, terms)), write(y.slice(i, 1)));
    }
    return y;
}

float ratio(double a, double b) {
    return b == 0 ? 0 : static_cast<float>(a / b);
}

}  // namespace

Tensor Combination::projected(vk::Stream& stream, const GuidanceTerm& term, const Tensor& z,
                              float t, const Velocities& of) {
    const Tensor estimate = linear_combination(stream, {{1, z}, {-t, of.prompted}});
    std::vector<Term> change{{-t, of.prompted}, {t, of.unprompted}};
    if (average_) change.push_back({term.beta, average_});
    average_ = linear_combination(stream, change);
    const auto along = products(stream, average_, estimate);
    const auto whole = products(stream, estimate, estimate);
    const auto squares = products(stream, average_, average_);
    // The estimate's change as one of the velocity: D = z − t v.
    const float gain = -(term.scale - 1) / t;
    return combine_samples(stream, z, [&](int64_t i) -> std::vector<Term> {
        const auto at = static_cast<size_t>(i);
        const double length = std::sqrt(squares[at]);
        const float shorter =
            term.norm > 0 && length > term.norm ? static_cast<float>(term.norm / length) : 1;
        return {{1, of.prompted},
                {gain * shorter, average_},
                {-gain * shorter * (1 - term.eta) * ratio(along[at], whole[at]), estimate}};
    });
}

Tensor Combination::by_text(vk::Stream& stream, const Tensor& z, float t, const Velocities& of) {
    const GuidanceTerm* term = guidance_.of_text();
    if (!term || !of.unprompted) return of.prompted;
    const float scale = term->scale;
    if (term->kind == GuidanceKind::apg) return projected(stream, *term, z, t, of);
    if (term->kind == GuidanceKind::cfg)
        return linear_combination(stream, {{scale, of.prompted}, {1 - scale, of.unprompted}});
    const auto along = products(stream, of.prompted, of.unprompted);
    const auto squares = products(stream, of.unprompted, of.unprompted);
    return combine_samples(stream, z, [&](int64_t i) -> std::vector<Term> {
        const auto at = static_cast<size_t>(i);
        return {{scale, of.prompted}, {(1 - scale) * ratio(along[at], squares[at]), of.unprompted}};
    });
}

Tensor Combination::velocity(vk::Stream& stream, const Tensor& z, float t, int step, int steps,
                             const Velocities& of) {
    std::vector<Term> sum{{1, by_text(stream, z, t, of)}};
    const auto add = [&](Term term) {
        constexpr size_t kMost = 4;  // of a linear_combination
        if (sum.size() == kMost) sum = {{1, linear_combination(stream, sum)}};
        sum.push_back(std::move(term));
    };
    for (size_t i = 0; i < guidance_.terms.size(); ++i) {
        const GuidanceTerm& term = guidance_.terms[i];
        if (term.of_text() || term.scale == 0 || !term.in_range(step, steps)) continue;
        if (const auto found = of.perturbed.find(i); found != of.perturbed.end())
            held_[i] = linear_combination(stream, {{1, of.prompted}, {-1, found->second}});
        if (held_.contains(i)) add({term.scale, held_.at(i)});
    }
    return sum.size() == 1 ? sum[0].x : linear_combination(stream, sum);
}

}  // namespace fovea
