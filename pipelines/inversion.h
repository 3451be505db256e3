#pragma once

#include <functional>
#include <vector>

#include "pipelines/sampler.h"

namespace fovea {

/// The way back from a picture's latent to noise, such that Euler's steps along the same times lead
/// to the latent again. A step back, z_i = z_{i+1} + (t_i − t_{i+1}) · v(z_i, t_i), has what it
/// looks for on both sides: it is iterated from the velocity of the step before (AIDI, arXiv
/// 2309.04907; ReNoise, arXiv 2403.14602; both for DDIM). Nothing is random. The model is never
/// asked at t = 0.
struct Inversion {
    std::vector<Tensor> latents;  ///< at each of the times; the last is the picture's own
    double residual = 0;          ///< largest RMS by which a step misses the next latent
    int evaluations = 0;          ///< of the model

    struct Options {
        int iterations = 12;      ///< at most, a step
        double tolerance = 1e-4;  ///< RMS of the residual that is small enough; latents have RMS 1
        std::function<void(int step)> on_step;  ///< 1 … times.size() − 1
    };
};

/// times: falling, as flow_times() has them, the last 0. latent: f32.
Inversion invert(vk::Stream& stream, const Tensor& latent, const std::vector<float>& times,
                 const FlowSampler::Model& velocity, const Inversion::Options& options = {});

}  // namespace fovea
