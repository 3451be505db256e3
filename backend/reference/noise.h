#pragma once
/// Standard normal noise: the specification of backend/ops/noise.h, and the only definition of
/// noise there is. A seed must give the same picture on every device, driver and compiler. So the
/// inverse normal CDF is a table of lines, and between the random bits and the number stand only
/// operations that are rounded in one way everywhere: on integers, and one fp32 multiplication and
/// one addition, never contracted to a fused one.
///
/// Of 32 random bits, bit 31 is the sign and the rest r the probability of the tail beyond the
/// number, (r + 1/2) / 2^32. Octaves of r (its leading zeros) have 64 lines each: lines err by less
/// than 4e-5 wherever the curve is steep, and numbers reach ±6.3.

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/reference/philox.h"

namespace fovea::reference {

/// z = start + slope · k for k in [0, 2^24)
struct NormalLine {
    float start, slope;
};

constexpr size_t kNormalOctaves = 32, kNormalPieces = 64;
using NormalTable = std::array<NormalLine, kNormalOctaves * kNormalPieces>;

/// z with P(Z > z) = tail, tail in (0, 1/2]: Newton's method from z = 0, which rises to the root
/// because the tail is convex there.
inline double upper_quantile(double tail) {
    double z = 0;
    for (int step = 0; step < 100; ++step) {
        const double excess = 0.5 * std::erfc(z * 0.70710678118654752) - tail;
        const double density = 0.39894228040143268 * std::exp(-0.5 * z * z);
        const double next = z + excess / density;
        if (!(next > z)) break;
        z = next;
    }
    return z;
}

inline const NormalTable& normal_table() {
    static const NormalTable table = [] {
        // The last knot of octave 0 lies half a step beyond probability 1/2.
        const auto knot = [](size_t octave, size_t piece) {
            const double r =
                std::ldexp(64.0 + static_cast<double>(piece), 24 - static_cast<int>(octave));
            return r >= 0x1p31 ? 0.0 : upper_quantile((r + 0.5) * 0x1p-32);
        };
        NormalTable lines{};
        for (size_t octave = 0; octave + 1 < kNormalOctaves; ++octave)
            for (size_t piece = 0; piece < kNormalPieces; ++piece) {
                const double start = knot(octave, piece), end = knot(octave, piece + 1);
                lines[octave * kNormalPieces + piece] = {
                    static_cast<float>(start), static_cast<float>((end - start) * 0x1p-24)};
            }
        lines[31 * kNormalPieces] = {static_cast<float>(upper_quantile(0x1p-33)), 0};  // r = 0
        return lines;
    }();
    return table;
}

/// The number of 32 random bits.
inline float normal(uint32_t random) {
    const uint32_t tail = random & 0x7fffffff;
    const uint32_t octave = static_cast<uint32_t>(std::countl_zero(tail)) - 1;
    const uint32_t fraction = tail == 0 ? 0 : tail << (octave + 1) << 1;  // below the leading 1
    const NormalLine line = normal_table()[octave * kNormalPieces + (fraction >> 26)];
    // volatile: C++ compilers may fuse a product and a sum across statements.
    const volatile float step = line.slope * static_cast<float>(fraction >> 2 & 0xffffff);
    const float z = line.start + step;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(z) ^ (random & 0x80000000));
}

/// Element i is number i % 4 of counter (i / 4 in 64 bits, stream_id, 0).
inline std::vector<float> noise(size_t count, uint64_t seed, uint32_t stream_id) {
    const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed),
                                         static_cast<uint32_t>(seed >> 32)};
    std::vector<float> numbers(count);
    for (size_t i = 0; i < count; i += 4) {
        const uint64_t block = i / 4;
        const auto random = philox4x32(
            {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), stream_id, 0}, key);
        for (size_t k = 0; k < 4 && i + k < count; ++k) numbers[i + k] = normal(random[k]);
    }
    return numbers;
}

}  // namespace fovea::reference
