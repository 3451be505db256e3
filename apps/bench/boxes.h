#pragma once

#include <string>
#include <vector>

#include "backend/vk/device.h"

namespace fovea::apps::bench {

struct BoxesOptions {
    std::string model, precision = "auto";
    std::string json, markdown, picture;
    std::string cases;  ///< folder of training/edit_cases.py; empty: no ceiling, no subjects
    int layouts = 100, steps = 24;
    float cfg = 3;
    uint64_t seed = 0;
};

/// Whether things come where --box asks: random layouts of one and two objects, drawn with and
/// without it from the same noise; overlap of the asked box with the one that the evaluator sees,
/// and what it recognises. With cases the same overlap for given pictures whose objects' masks are
/// known: what it could be at best; and the objects of these pictures, drawn by --box alone and
/// with --subject.
void bench_boxes(vk::Device& device, const BoxesOptions& options);

}  // namespace fovea::apps::bench
