#pragma once

#include <string>
#include <vector>

#include "apps/bench/shapes.h"
#include "backend/ops/attention.h"

namespace fovea::apps::bench {

struct TuneShapes {
    std::vector<AttentionShape> attention;
    std::vector<GemmShape> gemm;
    std::vector<ConvShape> conv;
    std::vector<std::string> patterns;               ///< of attention; none: those of each shape
    ScorePrecision scores = ScorePrecision::stored;  ///< of attention
};

/// Times every tile that fits each shape's class, stores the fastest and prints it with what it
/// gained. Throws Error where no shape has tiles to choose from; interruption throws Cancelled.
void tune_shapes(vk::Device& device, const TuneShapes& shapes, AttentionPath path);

}  // namespace fovea::apps::bench
