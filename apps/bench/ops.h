#pragma once

#include "apps/bench/row.h"
#include "apps/bench/shapes.h"

namespace fovea::apps::bench {

/// Rows are printed as they come. `patterns` empty: those of each shape. A case that cannot run is
/// skipped with its reason; interruption throws Cancelled between rows.
void bench_attention(Run& run, const std::vector<AttentionShape>& shapes,
                     const std::vector<std::string>& patterns);
void bench_gemm(Run& run, const std::vector<GemmShape>& shapes);
void bench_conv(Run& run, const std::vector<ConvShape>& shapes);
/// Blocks and denoisers with random weights: their time, attention's part of it, their memory.
void bench_model(Run& run, const std::vector<ModelShape>& shapes,
                 const std::vector<std::string>& patterns);

/// Seconds of `fovea generate` from the start of its process to the end of the first denoising
/// step, with empty and with filled caches. `device` as in --device.
Json bench_startup(const std::string& device, bool cpu);

}  // namespace fovea::apps::bench
