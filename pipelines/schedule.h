#pragma once

#include <string>
#include <vector>

/// Times and updates of rectified flow: z_t = (1 − t)·x0 + t·noise, the model predicts v = noise −
/// x0.
namespace fovea {

enum class Sampler {
    euler,   ///< first order, one evaluation a step
    heun,    ///< second order, two evaluations a step
    dpmpp2m  ///< second order, one evaluation a step: DPM-Solver++(2M), arXiv 2211.01095, for this
             ///< flow
};

/// "euler", "heun" or "dpmpp2m"; throws Error for another name.
Sampler sampler_by_name(const std::string& name);

/// Model evaluations a step.
int evaluations(Sampler sampler);

/// steps + 1 times from 1 (noise) to 0 (picture), uniform before the shift s: t' = s·t / (1 + (s −
/// 1)·t) (Stable Diffusion 3, arXiv 2403.03206, section 5.3.2). s > 1 spends more steps near the
/// noise.
std::vector<float> flow_times(int steps, float shift = 1);

/// One step as a linear combination: z_next = z·z + velocity·v + previous·x0_previous, where x0 = z
/// − t·v is each step's estimate of the picture and x0_previous that of the step before.
struct Update {
    float z = 1, velocity = 0, previous = 0;
};

Update euler_update(float t, float t_next);

/// `t_previous`: time of the step before; no step before: anything above 1.
Update dpmpp2m_update(float t_previous, float t, float t_next);

}  // namespace fovea
