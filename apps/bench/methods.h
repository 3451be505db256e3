#pragma once

#include "apps/bench/row.h"
#include "apps/bench/shapes.h"

namespace fovea::apps::bench {

/// Training-free methods on self-attention with structured inputs: q and k that are alike where
/// tokens are near, each head in its own directions, and where a smooth content is alike, so that
/// attention has blocks to find. Prints time, pairs and relative L2 error of o against dense; what
/// a method learns (calibration, the dense step of Re-ttention) it learns from inputs of one step
/// and is measured on those of the next, a tenth of whose values is new. Returns the same as a
/// table in markdown.
std::string bench_methods(Run& run, const std::vector<ModelShape>& shapes,
                          const std::vector<double>& densities);

}  // namespace fovea::apps::bench
