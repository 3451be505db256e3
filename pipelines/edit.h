#pragma once

#include <string>
#include <utility>
#include <vector>

#include "pipelines/clip.h"
#include "pipelines/denoise.h"
#include "pipelines/inversion.h"

namespace fovea {

/// Changes what a prompt says of a picture or a clip and leaves the rest. Its latent is inverted
/// with the source prompt; from a time of its way back on, the target's latent z + d runs beside
/// the source's z in one batch, d by the difference of their velocities, with the attention of the
/// source where both prompts agree. docs/editing.md.
struct Edit {
    struct Request {
        std::vector<Image> frames;      ///< one: a picture; more: a clip, of one size
        int width = 256, height = 256;  ///< it is resized to
        std::string source, target;     ///< prompts
        int steps = 24;                 ///< from noise to picture; the last is cut in three
        int iterations = 12;            ///< of the inversion, at most, a step
        float cfg = 3;                  ///< of both prompts; 1: none, and half the work
        /// Time of the inversion where the target leaves the source: 1 is noise.
        float strength = 1;
        /// Parts of the walk, from its start, in which the target takes the source's maps: of the
        /// words both prompts have, and (where the mask is 0) of self-attention.
        float keep_cross = 0.8f, keep_self = 0.3f;
        bool exchange = false;  ///< exchanged words take the maps of those they stand for as well
        std::vector<std::pair<std::string, float>> weights;  ///< word of the target, factor ≥ 0
        /// Of clips: frames whose tokens a frame sees besides its own: "all", as the model was
        /// trained; "none", or some as in "first,previous" (FateZero; parse_frames()).
        std::string shared_frames = "all";
        /// Nothing changes where the changed words are not: threshold of the mask in [0, 1]; 0: the
        /// whole picture may change.
        float mask = 0.3f;
        std::vector<std::string> mask_words;  ///< of either prompt instead of the changed ones
        std::function<void(int done, int total)> on_step;
        const std::atomic<bool>* cancel = nullptr;
    };
    struct Result {
        /// The edited ones, and the given ones at their size; equal away from where they may
        /// change.
        std::vector<Image> frames, resized;
        std::vector<float> mask;  ///< (frames, rows, columns) of the token grid
        int64_t rows, columns;
        Tensor latent, source_latent;  ///< f32; equal where the mask is 0
        double residual;               ///< of the inversion
    };
    /// Throws Error for a request that cannot be or does not fit, Cancelled.
    static Result run(vk::Stream& stream, const Model& model, const Request& request);

    /// Inverted and denoised again with the source prompt alone, and what the autoencoder makes of
    /// it without that.
    struct RoundTrip {
        std::vector<Image> frames, decoded;
    };
    static RoundTrip round_trip(vk::Stream& stream, const Model& model, const Request& request);

    static ClipMemory memory(vk::Stream& stream, const Model& model, const Request& request);
    /// As fovea::require_fits, and whatever else can be known before the work.
    static void require_fits(vk::Stream& stream, const Model& model, const Request& request,
                             uint64_t available = 0);
};

}  // namespace fovea
