#pragma once

#include <array>
#include <vector>

#include "vision/models/segment_encoder.h"

/// The prompt's side of promptable segmentation: prompts as tokens, a two-way transformer between
/// them and the picture (after SAM, arXiv 2304.02643), masks and scores. docs/model-format.md.
namespace fovea {

/// A place in a picture, (0, 0) its upper left corner, (1, 1) its lower right one.
struct SegmentPoint {
    enum Kind { positive, negative, corner_first, corner_last };
    float x = 0, y = 0;
    Kind kind = positive;
};

/// Prompts about one picture that are answered together: all have words or none, all an earlier
/// answer or none, and as many points as one another. One without anything is that of a clip's
/// later frame.
struct SegmentPrompts {
    int64_t count = 1;
    std::vector<SegmentPoint> points;  ///< (count, points of each)
    Tensor text;                       ///< (count, text_width): mean states of the words, or absent
    Tensor earlier;  ///< (count, 4 rows, 4 columns): logits of an earlier answer, or absent
};

struct SegmentAnswers {
    Tensor logits;  ///< (count, masks, 4 rows, 4 columns): above 0 is the object
    /// (count, masks + 1): logits of each mask's expected IoU, then one that there is anything
    Tensor scores;
};

/// fc2(GELU(fc1(x)))
struct Mlp {
    Linear fc1, fc2;
};
/// The width of the hidden layer comes from the stored shape.
Mlp load_mlp(const Loader& weights, int64_t in, int64_t out);
Tensor run(vk::Stream& stream, const Mlp& mlp, const Tensor& x);

/// Masks' logits (batch, 4 rows, 4 columns), limited to ±8, over 8, as tokens (batch, N, 16).
Tensor mask_patches(vk::Stream& stream, const Tensor& logits);

class SegmentDecoder {
  public:
    SegmentDecoder(vk::Stream& stream, const Weights& weights, DType dtype);

    /// features: of one picture, or of one for each prompt; skips of one picture. Words need one
    /// picture.
    SegmentAnswers forward(vk::Stream& stream, const SegmentFeatures& features,
                           const SegmentPrompts& prompts) const;

  private:
    /// Attention between two sets of tokens.
    struct Attention {
        Linear q, k, v, out;
    };
    struct Layer {
        std::array<Affine, 4> norms;
        std::array<Affine, 2> picture_norms;
        Attention self_attention, to_picture, to_tokens;
        Mlp mlp;
    };
    Attention load_attention(const Loader& weights, int64_t inner) const;
    /// residual + out(attention)
    Tensor attend(vk::Stream& stream, const Attention& layer, const Tensor& q, const Tensor& k,
                  const Tensor& v, const Tensor& residual) const;
    Tensor prompt_tokens(vk::Stream& stream, const SegmentPrompts& prompts) const;
    Tensor picture_tokens(vk::Stream& stream, const SegmentFeatures& features,
                          const SegmentPrompts& prompts) const;
    Tensor masks(vk::Stream& stream, const SegmentFeatures& features, const Tensor& x,
                 const Tensor& t) const;

    SegmentConfig config_;
    DType dtype_;
    std::vector<float> types_, outputs_;  ///< (4, width), (1 + masks, width)
    Tensor no_mask_;                      ///< (width)
    Tensor matched_;                      ///< (1, width)
    Mlp text_, mask_, score_;
    Linear match_picture_, match_text_, up1_, up2_;
    std::vector<Layer> layers_;
    Affine last_norm_, picture_norm_, out_norm_;
    Attention last_;
    Convolution refine_;
    std::vector<Mlp> hyper_;  ///< a mask each
};

}  // namespace fovea
