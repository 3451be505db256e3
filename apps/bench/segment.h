#pragma once

#include <string>

#include "backend/vk/device.h"

namespace fovea::apps::bench {

struct SegmentBenchOptions {
    std::string model, precision = "auto", markdown, json;
    std::string cases;    ///< folder that training/evaluate_segment.py --cases wrote
    int limit = 0;        ///< pictures; 0: all
    int everything = -1;  ///< of these, asked for everything; negative: all
    int grid = 16;        ///< of everything, points along a side
};

/// Masks by the segmentation model against the cases' exact ones, at the pictures' resolution: each
/// object by its innermost point, with a correction where that is most wrong, by its box, by its
/// name (all objects of that name), also without closer looks and the guided filter; words of
/// another picture; everything, and how fast. Columns are the cases' kinds.
void bench_segment(vk::Device& device, const SegmentBenchOptions& options);

}  // namespace fovea::apps::bench
