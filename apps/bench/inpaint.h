#pragma once

#include <string>
#include <vector>

#include "backend/vk/device.h"

namespace fovea::apps::bench {

struct InpaintOptions {
    std::string model, precision = "auto", markdown, json;
    std::string cases;                 ///< folder that training/edit_cases.py wrote
    std::string pictures;              ///< sheet of the first cases and results; empty: none
    std::vector<std::string> methods;  ///< names of rows; empty: all
    int limit = 0;                     ///< cases; 0: all
    bool boxes = false;                ///< holes are boxes around the cases' regions
    int steps = 24;
    float cfg = 3;
    uint64_t seed = 0;  ///< of the first case
};

/// Cases whose object is exchanged: its mask, grown, is the hole, the target's prompt is asked for.
/// Share in which the evaluator recognises the object around the hole and all objects in the whole
/// picture, whether known pixels stayed, gradients at the hole's edge. A row a method, batches of
/// cases; with and without PAIntA, beside the target drawn anew and pasted, and no object at all.
void bench_inpaint(vk::Device& device, const InpaintOptions& options);

}  // namespace fovea::apps::bench
