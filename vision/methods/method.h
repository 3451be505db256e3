#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/ops/rectified.h"
#include "backend/patterns/pattern.h"
#include "vision/models/dit_hooks.h"

/// Methods that make the denoising of a clip cheaper without training: sparse self-attention here,
/// features kept from step to step in cache.h. A method is made for one clip (or one batch of clips
/// of a shape) and walks with it from the first step to the last.
namespace fovea {

/// q and k normed and rotated, v: (batch, tokens, heads, head_dim).
struct SelfAttention {
    int64_t layer;
    Tensor q, k, v;
    Tensor perturb;  ///< as AttentionOptions::perturb; methods that know none throw Error
};

class AttentionMethod {
  public:
    virtual ~AttentionMethod() = default;
    /// Before each evaluation of the model; steps come in order, some more than once (Heun).
    virtual void begin_step(int step, int steps) = 0;
    virtual Tensor attention(vk::Stream& stream, const SelfAttention& x) = 0;
    /// Share of all (query, key) pairs that was computed so far, dense layers and steps included.
    /// May wait.
    virtual double density(vk::Stream& stream) = 0;
    /// Whether a step uses what an earlier one left for each sample: then samples must be the same
    /// ones at every step.
    virtual bool remembers() const { return false; }
    /// Whether it takes SelfAttention::perturb.
    virtual bool perturbs() const { return false; }
};

/// Step and layer of a pattern.
using PatternSchedule = std::function<Pattern(int64_t layer, int step, int steps)>;

/// Attention by patterns that are known before.
std::unique_ptr<AttentionMethod> pattern_method(PatternSchedule schedule);
std::unique_ptr<AttentionMethod> pattern_method(const Pattern& pattern);

/// rectified_attention() of every layer, selected anew at every step. grid, block, keep, mass and
/// rectify of the options are taken.
std::unique_ptr<AttentionMethod> rectified_method(const RectifiedOptions& options);

struct ReuseOptions {
    int every = 5;         ///< steps from one dense step to the next
    float growth = 0.04f;  ///< of the ratio, a step
};
/// Re-ttention (github.com/cccrrrccc/Re-ttention): at every `every`th step attention is dense and
/// what the pattern misses of it is kept, as the ratio ρ = Σ_seen e^s / Σ e^s of each query and the
/// residual R = o − ρ · o_seen; between them o = min(ρ + growth · steps since, 1) · o_seen + R.
/// R is taken before the output projection: that is linear, so it is the same.
std::unique_ptr<AttentionMethod> reuse_method(PatternSchedule schedule,
                                              const ReuseOptions& options);

/// Dense in the first steps and in some layers, `method` in the others.
std::unique_ptr<AttentionMethod> with_dense(std::unique_ptr<AttentionMethod> method,
                                            int dense_steps, std::vector<int> dense_layers);

/// Share of all pairs that a pattern keeps, heads averaged.
double kept_share(const Pattern& pattern, uint32_t tokens);

}  // namespace fovea
