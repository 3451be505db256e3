#pragma once

#include <string>
#include <vector>

#include "backend/vk/device.h"

namespace fovea::apps::bench {

struct GuidanceOptions {
    std::string model, precision = "auto";
    std::string json, markdown, picture;
    std::string prompts;                 ///< a file with a prompt a line; empty: plain_prompts()
    std::vector<std::string> guidances;  ///< rows; empty: the usual ones
    int count = 300, size = 256, steps = 24;
    int batch = 16;  ///< pictures computed together
    uint64_t seed = 0;
    bool entropy_scale = false;  ///< of all rows
};

/// What guidance does to the model's pictures: every row draws the same prompts from the same noise
/// with its own guidance, and once more in as many steps as cost what cfg costs; then pictures
/// without a prompt, once more at the cost of no guidance. A row has the share that the evaluator
/// recognises, its confidence, and the time of a step against none and against cfg. Prints rows as
/// they come, writes tables and a sheet of the first pictures.
void bench_guidance(vk::Device& device, const GuidanceOptions& options);

}  // namespace fovea::apps::bench
