#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "vision/models/dit_hooks.h"

/// Features kept from step to step: parts of the model whose residual changes little are not
/// computed again. With guidance both halves of the batch have caches of their own, being rows of
/// the same tensors.
namespace fovea {

class FeatureCache {
  public:
    virtual ~FeatureCache() = default;
    virtual void begin_step(int step, int steps) = 0;
    virtual Tensor part(vk::Stream& stream, const DitPart& part) = 0;
    /// Share of the layers' work that was done so far.
    virtual double computed() const = 0;
};

struct RunCacheOptions {
    std::vector<int64_t> layers;  ///< kept, ascending; neighbours make a run
    int every = 3;                ///< steps from one that computes them to the next
    int first = 4;                ///< steps before which all are computed
};
/// Residuals of runs of layers, h_out − h_in (ProfilingDiT, github.com/GeekGuru123/ProfilingDiT):
/// at step `first`, and every `every`th after it, all layers are computed and the residual of each
/// run is kept; between them it stands for the run. `layers` of the model's.
std::unique_ptr<FeatureCache> run_cache(int64_t layers, const RunCacheOptions& options);

/// The residual of all layers together stands for them while the input of the first, normed and
/// modulated, has changed by less than `threshold`, summed over the steps since it was computed:
/// Σ ‖m − m′‖ / ‖m′‖, m′ of the step before (TeaCache, arXiv 2411.19108, with the L2 norm for L1
/// and no fitted polynomial). First and last step are computed. Waits once a step.
std::unique_ptr<FeatureCache> threshold_cache(double threshold);

}  // namespace fovea
