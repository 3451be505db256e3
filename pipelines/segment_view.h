#pragma once

#include <optional>
#include <vector>

#include "vision/image.h"
#include "vision/mask.h"
#include "vision/models/segmenter.h"

/// Windows of pictures as the segmentation model sees them, and its answers about them.
namespace fovea {

/// A window of a picture at the model's resolution, read by its encoder.
struct SegmentView {
    Box window;     ///< within the picture
    Image picture;  ///< the window in about as many pixels as in training, sides multiples of 8
    SegmentFeatures features;

    SegmentView(vk::Stream& stream, const Segmenter& segmenter, const Image& whole,
                const Box& window, DType dtype);
    /// x, y in pixels of the whole picture
    SegmentPoint place(float x, float y, SegmentPoint::Kind kind) const;
};

/// One mask about a view.
struct SegmentAnswer {
    Box window;                 ///< the view's
    int rows = 0, columns = 0;  ///< of the logits
    std::vector<float> logits;  ///< (rows, columns): above 0 is the thing
    float score = 0;            ///< IoU that the model expects
    float found = 0;            ///< how sure it is that there is anything, 0 to 1

    /// Around what is above 0, in pixels of the whole picture; none where nothing is.
    std::optional<Box> box() const;
    /// Whether the model says that there is something and shows it.
    bool shows() const { return found >= 0.5f && box().has_value(); }
    /// The logits, linearly between them, as of another view.
    std::vector<float> logits_in(const SegmentView& view) const;
    /// How sure the model is that a pixel is the thing's, as the window is drawn in a picture of
    /// this size.
    std::vector<float> probabilities(int width, int height) const;
};

/// Windows of a picture that overlap by half and show it larger than as a whole: of half its sides,
/// or as many pixels as the model sees, `size` squared. None where that is no gain.
std::vector<Box> tiles_of(int width, int height, int64_t size);

/// What the answers about the whole picture and about each of its tiles show together, in the
/// tiles' resolution.
SegmentAnswer merge(const SegmentAnswer& whole, const std::vector<SegmentAnswer>& tiles);

/// A mask of a picture as an answer about it.
SegmentAnswer answer_of(const Mask& mask);

/// The answers about a view to each of the prompts: the first mask, or with `any_mask` that with
/// the greatest score.
std::vector<SegmentAnswer> answers(vk::Stream& stream, const Segmenter& segmenter,
                                   const SegmentView& view, const SegmentPrompts& prompts,
                                   bool any_mask);

}  // namespace fovea
