#pragma once

#include <string>
#include <vector>

#include "backend/vk/device.h"

namespace fovea::apps::bench {

struct VideoOptions {
    std::string model, precision = "auto";
    std::string markdown, picture;
    std::vector<std::string> methods;  ///< names of rows; empty: all
    std::vector<double> densities{0.5, 0.3, 0.2};
    int clips = 50, frames = 16, size = 128, steps = 24;
    float cfg = 3;
    std::vector<int> dense_steps{2};  ///< first ones, a row each; they count towards a density
    uint64_t seed = 0;
};

/// What methods without training do to the model's clips: each of `clips` prompts is drawn densely
/// and with every method from the same noise; a row a method and density has PSNR and SSIM against
/// the dense clips, the share of (query, key) pairs computed in all layers and steps, and the time
/// of denoising. Masks of "reordered" come from two other prompts. Prints rows as they come, writes
/// a table and strips of the first clip.
void bench_video(vk::Device& device, const VideoOptions& options);

}  // namespace fovea::apps::bench
