#pragma once

#include <array>
#include <string>
#include <vector>

#include "vision/layers.h"

/// Small ViT that says which objects a picture shows, where, on what colour, in what style. Trained
/// on real pictures and composed scenes only. docs/model-format.md.
namespace fovea {

struct EvaluatorConfig {
    int64_t width = 0, heads = 0, layers = 0, size = 0, objects = 0;
    std::vector<int64_t> stem;
    std::array<int, 3> rope_axes{};
    float rope_theta = 0;
    std::vector<std::string> colors, styles;
};

class Evaluator {
  public:
    Evaluator(vk::Stream& stream, const Weights& weights, DType dtype);

    const EvaluatorConfig& config() const { return config_; }

    struct Logits {
        Tensor objects;  ///< (batch, tokens, objects + 1); the last class is background
        Tensor color;    ///< (batch, colors)
        Tensor style;    ///< (batch, styles)
    };
    /// pictures (batch, size, size, 3) in [0, 1]; tokens are (size/16)² in row-major order
    Logits forward(vk::Stream& stream, const Tensor& pictures) const;

  private:
    struct Block : EncoderBlock {
        Tensor q_norm, k_norm;  ///< (head_dim)
    };
    EvaluatorConfig config_;
    Tensor input_scale_, input_shift_;  ///< (3): x·2 − 1
    std::vector<Convolution> stem_;
    std::vector<Block> blocks_;
    Affine norm_;
    Linear objects_, color_, style_;
};

}  // namespace fovea
