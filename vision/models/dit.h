#pragma once

#include <array>
#include <vector>

#include "backend/patterns/pattern.h"
#include "vision/layers.h"
#include "vision/models/dit_hooks.h"

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
    /// Clips: frames and their rate, pixels a side, fewest and most frames. A model without these
    /// keys was trained on pictures alone: frames is 0.
    int64_t frames = 0, fps = 0, clip_size = 0;
    std::array<int64_t, 2> frame_range{};
    float clip_shift = 1;  ///< of flow_times() for clips
};

/// Tokens along time, rows and columns; a picture is one frame.
using DitGrid = std::array<int64_t, 3>;

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

    /// Self-attention pattern of each layer for a token grid; what the model was trained with: all
    /// of a clip, windows and all of a picture by turns.
    std::vector<Pattern> patterns(const DitGrid& grid) const;

    /// Latents of pictures (batch, height, width, channels) or of clips (batch, frames, height,
    /// width, channels) at time t in [0, 1] (1 = noise) → velocity, same shape; with branches more
    /// samples, DitHooks::branches.
    Tensor forward(vk::Stream& stream, const Tensor& z, float t, const Context& context,
                   const DitHooks& hooks = {}) const;
    DitGrid grid(const Shape& z) const;  ///< of such latents

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
    /// What stays the same over the layers of a pass.
    struct Pass {
        const Context& context;
        DitGrid grid;
        DitHooks hooks;     ///< attention set
        Tensor modulation;  ///< (batch, 6, width), each layer adds its table
    };
    /// (6, rows, width) of the first rows: shift, scale, gate of attention, then of the MLP
    Tensor modulation(vk::Stream& stream, const Pass& pass, int64_t layer, int64_t rows) const;
    /// x: the first rows of the batch
    Tensor block(vk::Stream& stream, const Pass& pass, int64_t layer, const Tensor& x) const;
    /// block() of the rows that do not skip the layer.
    Tensor layer(vk::Stream& stream, const Pass& pass, int64_t layer, const Tensor& x) const;

    DitConfig config_;
    DType dtype_;
    Linear patch_, time1_, time2_, pool_, modulation_, final_;
    Tensor final_table_;  ///< (2, width)
    std::vector<Block> blocks_;
};

}  // namespace fovea
