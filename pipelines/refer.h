#pragma once

#include <string>
#include <vector>

#include "pipelines/lens.h"
#include "pipelines/segment.h"

namespace fovea {

/// Finds what words refer to, by the picture model alone: no part of it was trained to segment
/// (RefAM, arXiv 2509.22650, on our transformer). The picture is mixed with noise, the words' maps
/// of cross-attention are read, and drawn along the picture's edges. docs/segmentation.md.
struct Refer {
    struct Request {
        Image picture;
        std::string words;  ///< "the rocket"
        /// Filler words behind the phrase. Tokens that show nothing of the phrase attend to them,
        /// and their maps are dropped. Empty: none.
        std::string magnets = "on a background with the picture";
        /// Tokens to which the others attend this many times as much as to the mean one are no
        /// part of what they show: their heat is that of the tokens around. 0: all stay.
        float sinks = 3;
        int spread = 5;          ///< rounds of HeatSpread; 0: the maps as they are
        float threshold = 0.5f;  ///< of the heat brought to [0, 1]
        int size = 256;          ///< the longer side that the model sees
        uint64_t seed = 0;
        std::vector<float> times{Lens::kReadingTimes.begin(), Lens::kReadingTimes.end()};
        std::function<void(int done, int total)> on_step;
        const std::atomic<bool>* cancel = nullptr;
    };
    struct Result {
        int64_t rows, columns;    ///< of the token grid
        std::vector<float> heat;  ///< (rows, columns): [0, 1]
        Mask mask;                ///< of the picture: 1 is what the words say
        float peak_x, peak_y;     ///< of the heat, in pixels of the picture
        /// How far the phrase's share of attention inside the mask is above that outside, [−1, 1].
        float contrast;
    };
    /// Throws Error as known_words() and for words that name nothing, Cancelled.
    static Result run(vk::Stream& stream, const Model& model, const Request& request);
};

/// What of it the segmentation model is asked with: the heat's peak as a point on the thing, and of
/// the part of the mask around the peak the box, or the part itself as an earlier answer.
enum class ReferPrompt { point, box, point_and_box, mask };
SegmentPrompt refer_prompt(const Refer::Result& found, ReferPrompt kind);
/// The mask as it is; the score is the contrast, not below 0.
Segment to_segment(const Refer::Result& found);

}  // namespace fovea
