#pragma once

#include <span>
#include <vector>

#include "vision/layers.h"

/// Small bidirectional transformer over words, trained with the diffusion transformer.
/// docs/model-format.md.
namespace fovea {

struct TextEncoderConfig {
    int64_t vocabulary = 0, width = 0, heads = 0, layers = 0, length = 0;
};

class TextEncoder {
  public:
    TextEncoder(vk::Stream& stream, const Weights& weights, DType dtype);

    const TextEncoderConfig& config() const { return config_; }

    /// ids: batch·length token ids, padded with 0 → states (batch, length, width).
    Tensor forward(vk::Stream& stream, std::span<const int32_t> ids) const;

  private:
    TextEncoderConfig config_;
    Tensor words_, positions_;  ///< (vocabulary, width), (length, width)
    std::vector<EncoderBlock> blocks_;
    Affine norm_;
};

}  // namespace fovea
