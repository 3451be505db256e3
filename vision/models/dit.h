#pragma once

#include <array>
#include <span>
#include <vector>

#include "backend/patterns/pattern.h"
#include "vision/layers.h"

/// Diffusion transformer: rectified flow, adaLN-single modulation (PixArt-α, arXiv 2310.00426),
/// QK-norm, rotary positions over (time, row, column), cross-attention to the text.
/// docs/model-format.md.
namespace fovea {

struct DitConfig {
    int64_t width = 0, heads = 0, layers = 0, hidden = 0, text_width = 0;
    int64_t latent_channels = 0, patch = 0;
    std::array<int, 3> rope_axes{};  ///< dims of a head for time, row, column
    float rope_theta = 0;
    int64_t window = 0;                  ///< of the neighborhood layers, in tokens
    std::vector<int64_t> global_layers;  ///< dense; all others are neighborhood
    int64_t size = 0;                    ///< pixels a side in training
};

class Dit {
  public:
    Dit(vk::Stream& stream, const Weights& weights, DType dtype);

    const DitConfig& config() const { return config_; }

    /// What the text contributes, the same for every step: made once a prompt.
    struct Context {
        Tensor pooled;                     ///< (batch, width)
        std::vector<Tensor> keys, values;  ///< per layer (batch, length, heads, head_dim), normed
    };
    /// text: states of the text encoder (batch, length, text_width)
    Context context(vk::Stream& stream, const Tensor& text) const;

    /// Self-attention pattern of each layer for a token grid; what the model was trained with.
    std::vector<Pattern> patterns(int64_t rows, int64_t columns) const;

    /// z (batch, height, width, channels) latent at time t in [0, 1] (1 = noise) → velocity, same
    /// shape. `patterns`: one per layer, over (height/patch)·(width/patch) tokens.
    Tensor forward(vk::Stream& stream, const Tensor& z, float t, const Context& context,
                   std::span<const Pattern> patterns) const;

  private:
    struct Block {
        Tensor table;  ///< (6, width)
        Linear qkv, out;
        Tensor q_norm, k_norm;  ///< (head_dim)
        Tensor cross_norm;      ///< (width)
        Linear cross_q, cross_kv, cross_out;
        Tensor cross_q_norm, cross_k_norm;
        Linear fc1, fc2;
    };
    Tensor time_embedding(vk::Stream& stream, float t) const;
    Tensor block(vk::Stream& stream, const Block& b, const Tensor& x, const Tensor& modulation,
                 const Tensor& keys, const Tensor& values, const std::array<int64_t, 3>& grid,
                 const Pattern& pattern) const;

    DitConfig config_;
    DType dtype_;
    Linear patch_, time1_, time2_, pool_, modulation_, final_;
    Tensor final_table_;  ///< (2, width)
    std::vector<Block> blocks_;
};

}  // namespace fovea
