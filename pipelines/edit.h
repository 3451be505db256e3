#pragma once

#include <string>
#include <utility>
#include <vector>

#include "pipelines/denoise.h"
#include "pipelines/inversion.h"

namespace fovea {

/// Changes what a prompt says of a picture and leaves the rest. The picture's latent is inverted
/// with the source prompt; from a time of its way back on, the target's latent z + d runs beside
/// the source's z in one batch, d by the difference of their velocities, with the attention of the
/// source where both prompts agree. docs/editing.md.
struct Edit {
    struct Request {
        Image picture;
        int width = 256, height = 256;  ///< it is resized to
        std::string source, target;     ///< prompts
        int steps = 24;                 ///< from noise to picture; the last is cut in three
        float cfg = 3;                  ///< of both prompts; 1: none, and half the work
        /// Time of the inversion where the target leaves the source: 1 is noise.
        float strength = 1;
        /// Parts of the walk, from its start, in which the target takes the source's maps: of the
        /// words both prompts have, and (where the mask is 0) of self-attention.
        float keep_cross = 0.8f, keep_self = 0.3f;
        bool exchange = false;  ///< exchanged words take the maps of those they stand for as well
        std::vector<std::pair<std::string, float>> weights;  ///< word of the target, factor ≥ 0
        /// Nothing changes where the changed words are not: threshold of the mask in [0, 1]; 0: the
        /// whole picture may change.
        float mask = 0.3f;
        std::vector<std::string> mask_words;  ///< of either prompt instead of the changed ones
        std::function<void(int done, int total)> on_step;
        const std::atomic<bool>* cancel = nullptr;
    };
    struct Result {
        Image picture, resized;   ///< the edited, and the given one at its size; equal away from
                                  ///< where it may change
        std::vector<float> mask;  ///< (rows, columns) of the token grid
        int64_t rows, columns;
        Tensor latent, source_latent;  ///< f32; equal where the mask is 0
        double residual;               ///< of the inversion
    };
    /// Throws Error for a request that cannot be, Cancelled.
    static Result run(vk::Stream& stream, const Model& model, const Request& request);

    /// The picture inverted and denoised again with the source prompt alone, and what the
    /// autoencoder makes of it without that.
    struct RoundTrip {
        Image picture, decoded;
    };
    static RoundTrip round_trip(vk::Stream& stream, const Model& model, const Request& request);
};

}  // namespace fovea
