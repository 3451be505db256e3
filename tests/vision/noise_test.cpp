#include "vision/noise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numbers>

#include "backend/reference/philox.h"

namespace fovea {
namespace {

/// The definition with the C library's functions.
std::vector<double> by_definition(uint64_t seed, uint32_t stream, uint64_t block) {
    const auto random = reference::philox4x32(
        {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), stream, 0},
        {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    std::vector<double> normals;
    for (int pair = 0; pair < 4; pair += 2) {
        const double radius = std::sqrt(-2 * std::log(reference::uniform(random[pair])));
        const double angle = 2 * std::numbers::pi * random[pair + 1] * 0x1p-32;
        normals.push_back(radius * std::cos(angle));
        normals.push_back(radius * std::sin(angle));
    }
    return normals;
}

TEST(Noise, is_box_muller_of_philox) {
    const uint64_t seed = 0x123456789abcdef0;
    const std::vector<float> noise = normal_noise(seed, 7, 400'000);
    for (size_t block = 0; block < noise.size() / 4; ++block) {
        const std::vector<double> expected = by_definition(seed, 7, block);
        for (size_t lane = 0; lane < 4; ++lane)  // half a unit in the last place of a float
            ASSERT_NEAR(noise[4 * block + lane], expected[lane],
                        std::abs(expected[lane]) * 0x1.0001p-24 + 1e-12)
                << 4 * block + lane;
    }
}

/// FNV-1a over the bits. The number was the same with g++ and clang++, -O0 to -O3, with and without
/// hardware fma.
TEST(Noise, bits_never_change) {
    uint64_t hash = 0xcbf29ce484222325;
    for (const float value : normal_noise(42, 0, 1'000'000))
        hash = (hash ^ std::bit_cast<uint32_t>(value)) * 0x100000001b3;
    EXPECT_EQ(hash, 4040030528952340197u);
    // Checked against an independent implementation in Python with its math module.
    const std::vector<float> first = normal_noise(42, 0, 4);
    EXPECT_EQ(first, (std::vector<float>{-0.9701897896896211f, 0.1940189560319242f,
                                         -1.235620741535049f, 1.9239267500724069f}));
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
    EXPECT_LT(noise.back(), 6.67f);
}

}  // namespace
}  // namespace fovea
