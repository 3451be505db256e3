#include "backend/ops/noise.h"

#include <bit>
#include <numbers>
#include <set>

#include "backend/error.h"
#include "backend/reference/noise.h"
#include "shaders.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::device;

std::vector<uint32_t> bits(std::span<const float> values) {
    std::vector<uint32_t> result;
    for (const float value : values) result.push_back(std::bit_cast<uint32_t>(value));
    return result;
}

TEST(Noise, SameBitsAsReference) {
    vk::Stream stream(device());
    for (const Shape& shape : {Shape{1}, {2}, {3, 1}, {5}, {3, 5, 7}, {32, 32, 12}, {100003}})
        for (const uint64_t seed : {0ull, 0x123456789abcdef0ull}) {
            const auto expected = reference::noise(testing::numel(shape), seed, 7);
            testing::poison(stream, shape, DType::f32);
            EXPECT_EQ(bits(to_host(stream, noise(stream, shape, seed, 7))), bits(expected))
                << to_string(shape);
        }
}

// A million numbers hold every case of rounding: subnormal halves are 5 in 100000 of them.
TEST(Noise, HalvesAreTheNumbersRounded) {
    vk::Stream stream(device());
    const Shape shape{1000001};
    auto expected = reference::noise(testing::numel(shape), 5, 0);
    size_t subnormal = 0;
    for (float& value : expected) {
        value = half_to_float(float_to_half(value));
        subnormal += std::abs(value) < 0x1p-14f;
    }
    EXPECT_GT(subnormal, 10u);
    testing::poison(stream, shape, DType::f16);
    EXPECT_EQ(bits(to_host(stream, noise(stream, shape, 5, 0, DType::f16))), bits(expected));
}

// Bits that Philox will not produce in a test: both ends, both sides of each octave.
TEST(Noise, LinesMeetAndFollowTheInverseCdf) {
    const auto exact = [](uint32_t tail) {
        return reference::upper_quantile((static_cast<double>(tail) + 0.5) * 0x1p-32);
    };
    double worst = 0;
    float last = std::numeric_limits<float>::infinity();
    std::set<uint32_t> tails{0, 0x7fffffff};
    for (uint32_t octave = 0; octave < 31; ++octave)
        for (uint32_t k = 0; k < 640; ++k)
            tails.insert((1u << octave) + static_cast<uint32_t>((uint64_t{k} << octave) / 640));
    for (const uint32_t tail : tails) {
        const float z = reference::normal(tail);
        EXPECT_LE(z, last) << tail;
        last = z;
        worst = std::max(worst, std::abs(z - exact(tail)));
        EXPECT_EQ(reference::normal(tail | 0x80000000), -z);
    }
    EXPECT_LT(worst, 2e-5);
    EXPECT_NEAR(reference::normal(0), 6.3, 0.1);
    EXPECT_NEAR(0.5 * std::erfc(reference::normal(0) / std::numbers::sqrt2), 0x1p-33, 1e-15);
    EXPECT_NEAR(reference::normal(0x7fffffff), 0, 1e-8);
}

uint64_t fnv1a(std::span<const uint32_t> words) {
    uint64_t hash = 0xcbf29ce484222325;
    for (const uint32_t word : words) hash = (hash ^ word) * 0x100000001b3;
    return hash;
}

TEST(Noise, BitsNeverChange) {
    std::vector<float> table;
    for (const auto& line : reference::normal_table()) {
        table.push_back(line.start);
        table.push_back(line.slope);
    }
    EXPECT_EQ(fnv1a(bits(table)), 1463574439995942863u);
    EXPECT_EQ(fnv1a(bits(reference::noise(1'000'000, 42, 0))), 2550577359484773098u);
}

// What Vulkan leaves open is not used: every product and sum is uncontracted, no other float
// arithmetic is there.
TEST(Noise, ShaderHasOnlyExactlyRoundedArithmetic) {
    constexpr uint32_t kDecorate = 71, kNoContraction = 42, kExtInst = 12;
    constexpr uint32_t kFAdd = 129, kFSub = 131, kFMul = 133, kFDiv = 136, kFMod = 141;
    constexpr uint32_t kFindUMsb = 75;  // of GLSL.std.450
    for (const vk::Shader& shader : {shader::noise_f32, shader::noise_f16}) {
        std::set<uint32_t> uncontracted;
        size_t sums = 0;
        for (size_t i = 5; i < shader.code.size(); i += shader.code[i] >> 16) {
            const uint32_t op = shader.code[i] & 0xffff;
            if (op == kDecorate && shader.code[i + 2] == kNoContraction)
                uncontracted.insert(shader.code[i + 1]);
            if (op == kFAdd || op == kFSub || op == kFMul) {
                ++sums;
                EXPECT_TRUE(uncontracted.contains(shader.code[i + 2])) << shader.name;
            }
            EXPECT_FALSE(op >= kFDiv && op <= kFMod) << shader.name;
            EXPECT_TRUE(op != kExtInst || shader.code[i + 4] == kFindUMsb) << shader.name;
        }
        EXPECT_GE(sums, 2u) << shader.name;
    }
}

TEST(Noise, RefusesOtherTypes) {
    vk::Stream stream(device());
    EXPECT_THROW(noise(stream, {4}, 0, 0, DType::i32), Error);
}

}  // namespace
}  // namespace fovea
