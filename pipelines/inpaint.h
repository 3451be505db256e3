#pragma once

#include <functional>
#include <string>
#include <vector>

#include "pipelines/denoise.h"
#include "vision/mask.h"
#include "vision/membrane.h"

namespace fovea {

/// Fills holes of pictures by their text. The latent of what is known is held on its way from
/// noise (Denoiser::hold) while the model draws the rest, tile by tile. Known pixels stay, to the
/// bit; what is in the hole is never read. docs/inpainting.md.
struct Inpaint {
    struct Job {
        Image picture;
        Mask hole;
        std::string prompt;
        uint64_t seed = 0;
    };
    /// Prompts are those of the jobs.
    struct Request : DenoiseRequest {
        std::vector<Job> jobs;  ///< computed together where their tiles have one size
        bool painta = false;    ///< vision/taps/painta.h
        int window = 256;       ///< longest side that is drawn at once; larger holes are enlarged
        /// Estimates of tiles as they are drawn, after every preview_every steps.
        std::function<void(const std::vector<Image>&)> on_preview;
    };
    struct Result {
        Image picture;
        int tiles = 0;
        Seam seam;  ///< at the hole's edge
    };
    static constexpr int64_t kMaxBatch = 16;

    /// In the order of the jobs. Throws Error for a request that cannot be, Cancelled.
    static std::vector<Result> run(vk::Stream& stream, const Model& model, const Request& request);

    /// Tiles of a job.
    static std::vector<Tile> plan(const Model& model, const Mask& hole, int window);
};

}  // namespace fovea
