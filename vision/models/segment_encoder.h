#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "backend/ops/rope.h"
#include "backend/patterns/pattern.h"
#include "vision/attentions/backbone_attention.h"
#include "vision/layers.h"

/// The picture's side of promptable segmentation: a convolutional stem and a ViT of neighborhood
/// and global blocks, run once a picture. docs/model-format.md.
namespace fovea {

struct SegmentConfig {
    int64_t size = 0;  ///< pixels a side in training
    int64_t width = 0, heads = 0, layers = 0, hidden = 0;
    std::array<int64_t, 2> stem{};       ///< channels at half and quarter resolution
    int64_t window = 0;                  ///< of the neighborhood layers, in tokens
    std::vector<int64_t> global_layers;  ///< dense; all others are neighborhood
    /// Of each layer, or none at all: JSON for load_backbone_attention(), "null" for those above.
    std::vector<std::string> attentions;
    std::array<int, 3> rope_axes{};
    float rope_theta = 0;
    int64_t text_width = 0, match_width = 0;
    int64_t decoder_layers = 0, decoder_width = 0, decoder_hidden = 0;
    int64_t memory_layers = 0, memory_hidden = 0;
    std::array<int64_t, 2> upscale{};  ///< channels of masks at half and full resolution
    int64_t masks = 0;                 ///< answers to a prompt

    static SegmentConfig read(const Weights& weights);
    RopeOptions rope(int64_t frames, int64_t rows, int64_t columns) const;
};

/// Pictures as the decoder reads them: rows × columns tokens of 8×8 pixels.
struct SegmentFeatures {
    Tensor tokens;  ///< (batch, rows · columns, width)
    /// Of the stem, as the decoder adds them: (batch, 2 rows, 2 columns, upscale[0]) and
    /// (batch, 4 rows, 4 columns, upscale[1])
    Tensor skip1, skip2;
    int64_t rows = 0, columns = 0;
};

class SegmentEncoder {
  public:
    static constexpr int64_t kDown = 8;  ///< pixels of a token's side

    SegmentEncoder(vk::Stream& stream, const Weights& weights, DType dtype);

    /// pictures (batch, height, width, 3) in [0, 1], sides multiples of 8. `blocks`, where given,
    /// receives the tokens after each block.
    SegmentFeatures forward(vk::Stream& stream, const Tensor& pictures,
                            std::vector<Tensor>* blocks = nullptr) const;

  private:
    struct Block : EncoderBlock {
        Tensor q_norm, k_norm;                                ///< (head_dim)
        std::unique_ptr<BackboneAttention> chosen = nullptr;  ///< in place of the block's own
    };
    Block load_block(const Loader& weights, int64_t layer) const;
    /// x and what the layer adds to it.
    Tensor mix(vk::Stream& stream, const Block& block, const Tensor& x, int64_t rows,
               int64_t columns, const Pattern& pattern) const;
    /// Heads (batch, tokens, heads, head_dim) of normed tokens.
    Tensor attention(vk::Stream& stream, const Block& block, const Tensor& h,
                     const RopeOptions& rope, const Pattern& pattern) const;

    SegmentConfig config_;
    Tensor input_scale_, input_shift_;  ///< (3): x·2 − 1
    std::vector<Convolution> stem_;
    std::vector<Block> blocks_;
    Affine norm_;
    Linear skip1_, skip2_;
};

}  // namespace fovea
