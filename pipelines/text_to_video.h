#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pipelines/clip.h"
#include "pipelines/denoise.h"
#include "vision/methods/parse.h"

namespace fovea {

/// Clips from text: one latent a frame, all frames denoised together.
struct TextToVideo {
    /// on_step counts batches of frames decoded as steps after the others.
    struct Request : DenoiseRequest {
        uint64_t seed = 0;
        int frames = 16, width = 128, height = 128;
        /// What saves work; pattern "auto": auto_pattern(). Made once for the clip.
        MethodRequest method;
        /// Image to video: the clip begins with this picture, resized to the clip's sides.
        std::optional<Image> first_frame;
        int preview_frames = 8;  ///< of the clip, at equal distances
        std::function<void(int step, const std::vector<Image>&)> on_preview;
    };

    struct Result {
        std::vector<Image> frames;
        double density = 1;   ///< share of (query, key) pairs that self-attention computed
        double computed = 1;  ///< share of the layers' work that was done, where there is a cache
    };
    /// Throws Error for a request that cannot be or does not fit, a NaN or blank frames, Cancelled.
    static Result run(vk::Stream& stream, const Model& model, const Request& request);

    using Memory = ClipMemory;
    static Memory memory(vk::Stream& stream, const Model& model, const Request& request);

    /// Throws Error, with what would fit, where the clip needs more than `available` bytes (0: what
    /// the device has free) or a tensor more than the device's shaders can see.
    static void require_fits(vk::Stream& stream, const Model& model, const Request& request,
                             uint64_t available = 0);

    /// Times of a step and of decoding all frames, from one of each.
    struct Probe {
        double step_seconds, decode_seconds;  ///< of a step in the mean, where guidance varies
        double passes;                        ///< of the whole model a step, in the mean
        double total(int steps) const { return step_seconds * steps + decode_seconds; }
    };
    static Probe probe(vk::Stream& stream, const Model& model, const Request& request);
};

/// What pattern "auto" is for a grid: dense for few tokens, where patterns save little and a window
/// is nearly all of a frame; else windows of all frames, as large as most layers see pictures.
const char* auto_pattern(const DitGrid& grid);
inline constexpr int64_t kAutoTokens = 4096;
inline constexpr const char* kAutoPattern = "neighborhood:0x7x7";

}  // namespace fovea
