#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "vision/models/dit.h"

/// From heat maps of words to masks of token grids.
namespace fovea {

struct WordMaskOptions {
    float threshold = 0.5f;  ///< of the map brought to [0, 1]
    int grow = 1;            ///< tokens on every side, in the same frame
    int64_t frames = 1;
};

/// 1 where the heat, its least brought to 0 and its most to 1, is above the threshold, or where a
/// token within `grow` is; else 0. heat: (frames, rows, columns), brought to [0, 1] over all of
/// them. All 0 for a flat map.
std::vector<float> word_mask(const std::vector<float>& heat, int64_t rows, int64_t columns,
                             const WordMaskOptions& options = {});

/// Spreads a heat map over what looks alike, by the self-attention of a forward pass: `times` times
/// m ← keep · m + (1 − keep) · A m, A the mean map of the model's dense layers and of heads
/// (ViMAEdit's mask refinement, arXiv 2410.10496). A m is attention with m as values: no tokens²
/// map.
class HeatSpread {
  public:
    /// Of sample `sample` of the batch.
    HeatSpread(const Dit& dit, const DitGrid& grid, int64_t sample);

    /// `hooks`, and queries and keys of the pass are kept: tokens × width each, a dense layer.
    /// *this must outlive the hooks.
    DitHooks around(DitHooks hooks);

    /// heat: (tokens). After a pass of around(); Error before one.
    std::vector<float> spread(vk::Stream& stream, const std::vector<float>& heat, int times = 5,
                              float keep = 0.5f) const;

  private:
    std::vector<Pattern> patterns_;
    std::vector<int64_t> layers_;
    int64_t sample_;
    std::vector<std::pair<Tensor, Tensor>> kept_;  ///< q and k of the last pass
};

}  // namespace fovea
