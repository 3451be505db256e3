#include "pipelines/schedule.h"

#include <cmath>

#include "backend/error.h"

namespace fovea {

Sampler sampler_by_name(const std::string& name) {
    if (name == "euler") return Sampler::euler;
    if (name == "heun") return Sampler::heun;
    if (name == "dpmpp2m") return Sampler::dpmpp2m;
    fail("[sampler] \"{}\" found, expected euler, heun or dpmpp2m", name);
}

int evaluations(Sampler sampler) {
    return sampler == Sampler::heun ? 2 : 1;
}

std::vector<float> flow_times(int steps, float shift) {
    require(steps >= 1 && shift > 0,
            "[schedule] {} steps and shift {} found, expected at least 1 and above 0", steps,
            shift);
    std::vector<float> times;
    for (int i = 0; i <= steps; ++i) {
        const double t = static_cast<double>(steps - i) / steps;
        times.push_back(static_cast<float>(shift * t / (1 + (shift - 1) * t)));
    }
    return times;
}

Update euler_update(float t, float t_next) {
    return {.z = 1, .velocity = t_next - t, .previous = 0};
}

// With alpha = 1 − t, sigma = t, lambda = log(alpha / sigma), h = lambda_next − lambda, the exact
// solution for a constant estimate x0 is z_next = (sigma_next / sigma)·z + (alpha_next −
// alpha·sigma_next / sigma)·x0, finite at both ends. The second order replaces x0 by (1 + w)·x0 −
// w·x0_previous, w = h / (2·h_previous): lambda is infinite at t = 1 (w = 0 after it) and at t = 0
// (first order into it, where the picture no longer changes).
Update dpmpp2m_update(float t_previous, float t, float t_next) {
    const double ratio = static_cast<double>(t_next) / t;
    const double gain = (1.0 - t_next) - (1.0 - t) * ratio;
    double w = 0;
    if (t_previous < 1 && t_next > 0) {
        const auto lambda = [](double time) { return std::log((1 - time) / time); };
        w = (lambda(t_next) - lambda(t)) / (2 * (lambda(t) - lambda(t_previous)));
    }
    return {.z = static_cast<float>(ratio + gain * (1 + w)),
            .velocity = static_cast<float>(-gain * (1 + w) * t),
            .previous = static_cast<float>(-gain * w)};
}

}  // namespace fovea
