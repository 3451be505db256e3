#include "vision/noise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace fovea {
namespace {

// A change here changes every picture of every seed.
TEST(Noise, bits_never_change) {
    EXPECT_EQ(normal_noise(42, 0, 4),
              (std::vector<float>{-0x1.360028p+0f, 0x1.42dc9p-4f, 0x1.73bf48p+0f, 0x1.a3f5dp-2f}));
}

TEST(Noise, a_longer_request_begins_with_the_shorter) {
    const std::vector<float> all = normal_noise(5, 1, 103);
    for (size_t count = 0; count < all.size(); ++count) {
        const std::vector<float> some = normal_noise(5, 1, count);
        ASSERT_EQ(some.size(), count);
        ASSERT_TRUE(std::equal(some.begin(), some.end(), all.begin()));
    }
}

double correlation(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
    return sum / static_cast<double>(a.size());
}

TEST(Noise, seeds_streams_and_neighbours_are_uncorrelated) {
    constexpr size_t kCount = 1'000'000;
    constexpr double kBound = 5e-3;  // 5 standard deviations
    const std::vector<float> noise = normal_noise(1, 0, kCount);
    EXPECT_LT(std::abs(correlation(noise, normal_noise(2, 0, kCount))), kBound);
    EXPECT_LT(std::abs(correlation(noise, normal_noise(1, 1, kCount))), kBound);
    EXPECT_LT(std::abs(correlation(noise, normal_noise(1 + (uint64_t{1} << 32), 0, kCount))),
              kBound);
    for (size_t shift = 1; shift < 6; ++shift) {
        std::vector<float> shifted = noise;
        std::rotate(shifted.begin(), shifted.begin() + static_cast<std::ptrdiff_t>(shift),
                    shifted.end());
        EXPECT_LT(std::abs(correlation(noise, shifted)), kBound) << shift;
    }
}

TEST(Noise, follows_the_normal_distribution) {
    constexpr size_t kCount = 1'000'000;
    std::vector<float> noise = normal_noise(2024, 3, kCount);
    std::array<double, 4> moments{};
    for (const double x : noise) {
        moments[0] += x;
        moments[1] += x * x;
        moments[2] += x * x * x;
        moments[3] += x * x * x * x;
    }
    // Within five standard deviations of 0, 1, 0, 3.
    EXPECT_NEAR(moments[0] / kCount, 0, 5 * std::sqrt(1.0 / kCount));
    EXPECT_NEAR(moments[1] / kCount, 1, 5 * std::sqrt(2.0 / kCount));
    EXPECT_NEAR(moments[2] / kCount, 0, 5 * std::sqrt(15.0 / kCount));
    EXPECT_NEAR(moments[3] / kCount, 3, 5 * std::sqrt(96.0 / kCount));

    // Kolmogorov-Smirnov: the bound has a chance of 1e-6 for a true normal distribution.
    std::sort(noise.begin(), noise.end());
    double distance = 0;
    for (size_t i = 0; i < kCount; ++i) {
        const double expected = 0.5 * std::erfc(-noise[i] / std::numbers::sqrt2);
        distance = std::max({distance, std::abs(expected - static_cast<double>(i) / kCount),
                             std::abs(expected - static_cast<double>(i + 1) / kCount)});
    }
    EXPECT_LT(distance * std::sqrt(static_cast<double>(kCount)), 2.7);
    EXPECT_GT(noise.back(), 4.5f);
    EXPECT_LT(noise.back(), 6.34f);
}

}  // namespace
}  // namespace fovea
