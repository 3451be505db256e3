#pragma once

#include <map>
#include <memory>
#include <vector>

#include "vision/guidance/guidance.h"
#include "vision/models/dit.h"

/// The branches of perturbed guidance: what they change in a forward pass, and the hooks by which
/// they share it with the others.
namespace fovea {

/// Whether the term's branch needs strengths of single heads in some layer, DitHooks::perturbed.
bool is_partial(const GuidanceTerm& term, const DitConfig& model);

/// What a term's branch does to the model, its tables on the device.
class Perturbation {
  public:
    /// Throws Error where the term does not fit the model; of_text() terms have none.
    Perturbation(vk::Stream& stream, const GuidanceTerm& term, const DitConfig& model);

    /// Layers that the branch passes unchanged.
    const std::vector<int64_t>& skipped() const { return skipped_; }
    /// Before it the branch is as the prompt's own.
    int64_t first_layer() const;
    bool changes_attention(int64_t layer) const { return heads_.contains(layer); }
    /// Self-attention of the branch's samples in a layer that it changes.
    Tensor attention(vk::Stream& stream, const DitHooks& base, const DitGrid& grid, int64_t layer,
                     const Tensor& q, const Tensor& k, const Tensor& v) const;

  private:
    struct Heads {
        Tensor strengths;  ///< (heads) f32
        bool all;          ///< each is 1
    };
    std::vector<int64_t> skipped_;
    std::map<int64_t, Heads> heads_;
    float sigma_ = 0;  ///< of the queries' blur; 0: values are mixed in instead
};

/// Samples of a batch, `count` each: the prompt's, those without it where `unprompted`, then each
/// perturbation's.
struct BranchLayout {
    int64_t count = 1;
    bool unprompted = false;
    /// In the order of their first layers; `shared` below.
    std::vector<std::shared_ptr<const Perturbation>> perturbed;

    int64_t base_rows() const { return unprompted ? 2 * count : count; }
    int64_t rows() const { return base_rows() + count * std::ssize(perturbed); }
};

/// `base` with the branches of a layout. shared: what comes before a branch's first layer is
/// computed once for it and the prompt's; else the branch runs from layer 0.
DitHooks with_branches(DitHooks base, const BranchLayout& layout, const DitGrid& grid, bool shared);

/// Passes of the whole model that steps need a sample, in the mean: layers that are shared or
/// skipped do not count.
double mean_passes(const Guidance& guidance, const std::vector<Perturbation>& perturbations,
                   int64_t layers, int steps);

}  // namespace fovea
