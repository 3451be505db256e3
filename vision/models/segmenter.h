#pragma once

#include <vector>

#include "vision/models/segment_decoder.h"
#include "vision/models/segment_encoder.h"

/// Promptable segmentation: a picture is encoded once, any number of prompts asked about it, and a
/// mask carried on through a clip by attention to what earlier frames showed (after SAM 2,
/// arXiv 2408.00714). docs/model-format.md.
namespace fovea {

class Segmenter {
  public:
    Segmenter(vk::Stream& stream, const Weights& weights, DType dtype);

    const SegmentConfig& config() const { return config_; }

    /// As SegmentEncoder.
    SegmentFeatures encode(vk::Stream& stream, const Tensor& pictures,
                           std::vector<Tensor>* blocks = nullptr) const {
        return encoder_.forward(stream, pictures, blocks);
    }
    /// As SegmentDecoder.
    SegmentAnswers answer(vk::Stream& stream, const SegmentFeatures& features,
                          const SegmentPrompts& prompts) const {
        return decoder_.forward(stream, features, prompts);
    }

    enum class Frame { asked = 0, other = 1 };
    /// What is remembered of a frame and its mask, logits (batch, 4 rows, 4 columns): (batch, N,
    /// width).
    Tensor remember(vk::Stream& stream, const SegmentFeatures& features, const Tensor& logits,
                    Frame frame) const;
    /// A frame's features after a look at what is remembered: that of the frame that was asked and
    /// of the one before, (batch, N, width) each.
    SegmentFeatures recall(vk::Stream& stream, const SegmentFeatures& features,
                           const std::vector<Tensor>& memory) const;

  private:
    struct Memory {
        Affine norm1, norm2;
        Linear q, kv, out, fc1, fc2;
        Tensor q_norm, k_norm;  ///< (head_dim)
    };
    SegmentConfig config_;
    SegmentEncoder encoder_;
    SegmentDecoder decoder_;
    Mlp mask_;
    Tensor kinds_;  ///< (2, width): Frame
    std::vector<Memory> memory_;
};

}  // namespace fovea
