#pragma once

#include "vision/layers.h"

namespace fovea {

/// Attentive pooling of tokens for probing frozen features (Efficient Probing,
/// github.com/billpsomas/efficient-probing): learned queries attend to the tokens as they are, each
/// pools its slice of the projected tokens, and the slices side by side are the result.
class AttentiveProbe {
  public:
    /// Reads `queries` (m, width) and `value`, a linear layer to `out` channels, m dividing it into
    /// multiples of 4.
    AttentiveProbe(const Loader& weights, int64_t width, int64_t queries, int64_t out);

    /// tokens (batch, n, width) → (batch, out) f32. `weights`, where given, receives the maps
    /// (batch, m, n) f32.
    Tensor forward(vk::Stream& stream, const Tensor& tokens, Tensor* weights = nullptr) const;

  private:
    int64_t count_;
    Tensor queries_;  ///< (width, m), scaled
    Linear value_;
};

}  // namespace fovea
