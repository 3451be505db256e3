#include "pipelines/inversion.h"

#include <cmath>

#include "backend/error.h"
#include "backend/log.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/reduce.h"

namespace fovea {
namespace {

double mean_square(vk::Stream& stream, const Tensor& x) {
    const Statistics s = statistics(stream, x);
    return s.nan + s.inf > 0 ? NAN : s.mean * s.mean + s.stddev * s.stddev;
}

}  // namespace

Inversion invert(vk::Stream& stream, const Tensor& latent, const std::vector<float>& times,
                 const FlowSampler::Model& velocity, const Inversion::Options& options) {
    require(times.size() >= 2 && options.iterations >= 1,
            "[inversion] {} times and {} iterations found, expected at least 2 and 1", times.size(),
            options.iterations);
    Inversion result;
    result.latents.resize(times.size());
    result.latents.back() = latent;
    Tensor v;
    for (size_t i = times.size() - 1; i-- > 0;) {
        const float t = times[i], step = t - times[i + 1];
        const Tensor& next = result.latents[i + 1];
        Tensor z = v ? linear_combination(stream, {{1, next}, {step, v}}) : next, best = z;
        Tensor before, miss_before;  // of the iterate before
        double least = 0, squares_before = 0;
        for (int n = 0; n < options.iterations; ++n) {
            v = velocity(z, t);
            ++result.evaluations;
            const Tensor again = linear_combination(stream, {{1, next}, {step, v}});
            // What Euler's step from z misses next by.
            const Tensor miss = linear_combination(stream, {{1, again}, {-1, z}});
            const double squares = mean_square(stream, miss);
            require(std::isfinite(squares), "[inversion] the latent at time {:.3f} is not finite",
                    t);
            if (n == 0 || squares < least * least) {
                least = std::sqrt(squares);
                best = z;
            }
            if (least <= options.tolerance) break;
            // Anderson's mixing of two iterates: the point between them that would miss least.
            double mix = 0;
            if (before) {
                const double change =
                    mean_square(stream, linear_combination(stream, {{1, miss}, {-1, miss_before}}));
                if (change > 0) mix = (squares + change - squares_before) / (2 * change);
            }
            z = before ? linear_combination(stream, {{static_cast<float>(1 - mix), again},
                                                     {static_cast<float>(mix), before}})
                       : again;
            before = again;
            miss_before = miss;
            squares_before = squares;
        }
        log::debug("inversion to time {:.4f}: {} evaluations so far, misses by {:.5f}", t,
                   result.evaluations, least);
        result.latents[i] = best;
        result.residual = std::max(result.residual, least);
        if (options.on_step) options.on_step(static_cast<int>(times.size() - 1 - i));
    }
    return result;
}

}  // namespace fovea
