#pragma once

#include <vector>

#include "vision/models/dit.h"

/// Self-attention at sizes that the model was not trained at: more keys flatten it, fewer sharpen
/// it. With logits times √(ln N / ln T), N and T the keys that a query of the layer sees now and in
/// training, its entropy stays about the same (arXiv 2306.08645, with CLEAR's rule for layers that
/// see a part).
namespace fovea {

/// √(ln N / ln T) of each layer for a grid of tokens, by what the model was trained with: windows
/// that are whole keep their scale.
std::vector<float> entropy_factors(const Dit& dit, const DitGrid& grid);

/// `base` with logits times a factor a layer.
DitHooks with_entropy_scale(const DitHooks& base, std::vector<float> factors);

}  // namespace fovea
