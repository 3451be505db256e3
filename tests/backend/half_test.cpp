#include "backend/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace {

using fovea::bfloat16_to_float;
using fovea::float_to_half;
using fovea::half_to_float;

constexpr bool is_nan(uint32_t half) {
    return (half & 0x7fffu) > 0x7c00u;
}

/// The definition of binary16, written with ldexp instead of bit moves.
float by_definition(uint16_t half) {
    const int exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
    const float sign = (half & 0x8000) != 0 ? -1.0f : 1.0f;
    if (exponent == 31)
        return fraction != 0 ? std::numeric_limits<float>::quiet_NaN()
                             : sign * std::numeric_limits<float>::infinity();
    if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
    return sign * std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
}

TEST(Half, every_half_converts_by_definition_and_back) {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        const auto half = static_cast<uint16_t>(bits);
        const float value = half_to_float(half);
        if (is_nan(half)) {
            ASSERT_TRUE(std::isnan(value)) << bits;
            ASSERT_EQ(float_to_half(value), half | 0x200) << bits;  // quieted, payload kept
        } else {
            ASSERT_EQ(std::bit_cast<uint32_t>(value), std::bit_cast<uint32_t>(by_definition(half)))
                << bits;
            ASSERT_EQ(float_to_half(value), half) << bits;
        }
    }
}

TEST(Half, rounds_to_nearest_even_between_every_pair_of_neighbours) {
    for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
        const auto low = static_cast<uint16_t>(bits), high = static_cast<uint16_t>(bits + 1);
        const float above = high == 0x7c00 ? 65536.0f : half_to_float(high);
        const float middle = (half_to_float(low) + above) / 2;  // exact in fp32
        const uint16_t even = (low & 1) == 0 ? low : high;
        ASSERT_EQ(float_to_half(middle), even) << bits;
        ASSERT_EQ(float_to_half(std::nextafter(middle, 0.0f)), low) << bits;
        ASSERT_EQ(float_to_half(std::nextafter(middle, 1e30f)), high) << bits;
        ASSERT_EQ(float_to_half(-middle), even | 0x8000) << bits;
    }
}

TEST(Half, edges_of_the_range) {
    EXPECT_EQ(float_to_half(65504.0f), 0x7bff);
    EXPECT_EQ(float_to_half(65519.99f), 0x7bff);
    EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
    EXPECT_EQ(float_to_half(std::numeric_limits<float>::max()), 0x7c00);
    EXPECT_EQ(float_to_half(-std::numeric_limits<float>::infinity()), 0xfc00);
    EXPECT_EQ(float_to_half(std::numeric_limits<float>::denorm_min()), 0x0000);
    EXPECT_EQ(float_to_half(-0.0f), 0x8000);
    EXPECT_EQ(float_to_half(0x1p-24f), 0x0001);
    EXPECT_TRUE(is_nan(float_to_half(std::bit_cast<float>(0x7f800001u))));
}

#ifdef __FLT16_MAX__
TEST(Half, agrees_with_the_compiler_on_random_bits) {
    std::mt19937 random(1);
    for (int i = 0; i < 4'000'000; ++i) {
        const float value = std::bit_cast<float>(static_cast<uint32_t>(random()));
        const auto expected = std::bit_cast<uint16_t>(static_cast<_Float16>(value));
        ASSERT_EQ(float_to_half(value), expected) << std::bit_cast<uint32_t>(value);
    }
}
#endif

TEST(Half, bfloat16_is_the_upper_half_of_a_float) {
    EXPECT_EQ(bfloat16_to_float(0x3f80), 1.0f);
    EXPECT_EQ(bfloat16_to_float(0xc049), -3.140625f);
    EXPECT_EQ(bfloat16_to_float(0x0001), 0x1p-133f);
    EXPECT_TRUE(std::isinf(bfloat16_to_float(0x7f80)));
    EXPECT_TRUE(std::isnan(bfloat16_to_float(0x7fc0)));
}

}  // namespace
