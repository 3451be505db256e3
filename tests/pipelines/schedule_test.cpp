#include "pipelines/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "backend/error.h"

namespace fovea {
namespace {

// Data N(mean, s²): the exact velocity of the flow is linear in z.
struct Gaussian {
    double mean = 0.7, s = 0.5;
    double velocity(double z, double t) const {
        const double alpha = 1 - t, variance = alpha * alpha * s * s + t * t;
        const double x0 = mean + alpha * s * s / variance * (z - alpha * mean);
        const double noise = t / variance * (z - alpha * mean);
        return noise - x0;
    }
    // Where the flow takes a start z at t = 1: it maps quantile to quantile.
    double end(double z) const { return mean + s * z; }
};

double integrate(Sampler sampler, int steps, double start, float shift = 1) {
    const Gaussian data;
    const auto times = flow_times(steps, shift);
    double z = start, before = 0;
    for (int i = 0; i < steps; ++i) {
        const float t = times[i], next = times[i + 1];
        const double v = data.velocity(z, t), x0 = z - t * v;
        Update update = euler_update(t, next);
        if (sampler == Sampler::dpmpp2m) update = dpmpp2m_update(i > 0 ? times[i - 1] : 2, t, next);
        double after = update.z * z + update.velocity * v + update.previous * before;
        if (sampler == Sampler::heun && next > 0)
            after = z + 0.5 * (next - t) * (v + data.velocity(after, next));
        z = after;
        before = x0;
    }
    return z;
}

double error(Sampler sampler, int steps) {
    return std::abs(integrate(sampler, steps, 1.3) - Gaussian{}.end(1.3));
}

TEST(Schedule, TimesRunFromNoiseToPicture) {
    for (const float shift : {1.0f, 3.0f}) {
        const auto times = flow_times(7, shift);
        ASSERT_EQ(times.size(), 8u);
        EXPECT_EQ(times.front(), 1);
        EXPECT_EQ(times.back(), 0);
        for (size_t i = 0; i + 1 < times.size(); ++i) EXPECT_GT(times[i], times[i + 1]);
    }
    EXPECT_GT(flow_times(4, 3)[2], flow_times(4, 1)[2]);
    EXPECT_THROW(flow_times(0), Error);
}

TEST(Schedule, EverySamplerConverges) {
    for (const Sampler sampler : {Sampler::euler, Sampler::heun, Sampler::dpmpp2m})
        EXPECT_LT(error(sampler, 1000), 2e-3) << static_cast<int>(sampler);
}

TEST(Schedule, ErrorsFallWithTheirOrder) {
    const double euler = error(Sampler::euler, 40) / error(Sampler::euler, 80);
    EXPECT_NEAR(euler, 2, 0.3);
    const double heun = error(Sampler::heun, 40) / error(Sampler::heun, 80);
    EXPECT_GT(heun, 3.2);
    EXPECT_LT(error(Sampler::dpmpp2m, 40), error(Sampler::euler, 40));
    EXPECT_LT(error(Sampler::heun, 40), error(Sampler::euler, 40));
}

TEST(Schedule, TheLastStepIsTheEstimateOfThePicture) {
    const Update update = dpmpp2m_update(0.2f, 0.1f, 0);
    EXPECT_FLOAT_EQ(update.z, 1);
    EXPECT_FLOAT_EQ(update.velocity, -0.1f);
    EXPECT_EQ(update.previous, 0);
}

TEST(Schedule, AConstantEstimateIsSolvedExactly) {
    const double x0 = 0.4, noise = -1.1;
    for (const auto& [t, next] : {std::pair{1.0f, 0.8f}, {0.6f, 0.3f}, {0.2f, 0.0f}}) {
        const Update update = dpmpp2m_update(2, t, next);
        const double z = (1 - t) * x0 + t * noise;
        EXPECT_NEAR(update.z * z + update.velocity * (noise - x0), (1 - next) * x0 + next * noise,
                    1e-6);
    }
}

TEST(Schedule, UnknownSamplerIsNamed) {
    EXPECT_EQ(sampler_by_name("heun"), Sampler::heun);
    EXPECT_THROW(sampler_by_name("ddim"), Error);
}

}  // namespace
}  // namespace fovea
