#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pipelines/denoise.h"
#include "vision/methods/calibration.h"

namespace fovea {

/// A few clips made with dense attention, for what `fovea calibrate` measures on them.
struct CalibrationRequest : DenoiseRequest {
    std::vector<std::string> prompts;  ///< a clip each; `prompt` is not read
    uint64_t seed = 0;                 ///< of the first; the next prompts have the next seeds
    int frames = 16, width = 128, height = 128;
    uint32_t block = 0;             ///< tokens; 0: block_for() of the clip's
    std::vector<float> range_ends;  ///< as MassSettings; empty: its own
};

/// The measured attention, to choose() from. on_step counts over all clips. Throws Error,
/// Cancelled.
std::unique_ptr<Calibrator> measure_attention(vk::Stream& stream, const Model& model,
                                              const CalibrationRequest& request);

}  // namespace fovea
