#include "vision/noise.h"

#include <array>
#include <bit>
#include <cfloat>
#include <cmath>

#include "backend/reference/philox.h"

#ifdef __FAST_MATH__
#error "vision/noise.cpp promises the same bits everywhere: build it without -ffast-math"
#endif
static_assert(FLT_EVAL_METHOD == 0, "doubles must be computed as doubles (on 32-bit x86: SSE2)");

namespace fovea {

namespace {

template <size_t N>
double polynomial(double x, const std::array<double, N>& highest_first) {
    double sum = highest_first[0];
    for (size_t i = 1; i < N; ++i) sum = std::fma(sum, x, highest_first[i]);
    return sum;
}

/// Natural logarithm for x in (0, 1], from atanh's series: error about 1e-16 relative.
double logarithm(double x) {
    static constexpr std::array<double, 11> kSeries = {1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15,
                                                       1.0 / 13, 1.0 / 11, 1.0 / 9,  1.0 / 7,
                                                       1.0 / 5,  1.0 / 3,  1.0};
    const auto bits = std::bit_cast<uint64_t>(x);
    int exponent = static_cast<int>(bits >> 52) - 1023;
    double mantissa = std::bit_cast<double>((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);
    if (mantissa > 0x1.6a09e667f3bcdp+0) {  // sqrt(2): the series runs over |s| <= 0.172
        mantissa *= 0.5;
        ++exponent;
    }
    const double s = (mantissa - 1) / (mantissa + 1);
    const double log_mantissa = 2 * s * polynomial(s * s, kSeries);
    constexpr double kLog2 = 0x1.62e42fefa39efp-1;
    return std::fma(static_cast<double>(exponent), kLog2, log_mantissa);
}

struct Direction {
    double cosine, sine;
};

/// cos and sin of the angle `turn` / 2^32 full turns. Reduced to an eighth of a turn in integers,
/// hence without error.
Direction direction(uint32_t turn) {
    // 1 / n! with alternating signs.
    static constexpr std::array<double, 8> kSine = {
        -1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880,
        -1.0 / 5040,          1.0 / 120,        -1.0 / 6,        1.0};
    static constexpr std::array<double, 9> kCosine = {1.0 / 20922789888000,
                                                      -1.0 / 87178291200,
                                                      1.0 / 479001600,
                                                      -1.0 / 3628800,
                                                      1.0 / 40320,
                                                      -1.0 / 720,
                                                      1.0 / 24,
                                                      -1.0 / 2,
                                                      1.0};
    const uint32_t quarter = (turn + (1u << 29)) >> 30;  // wraps to 0 above 7/8, as it must
    const auto rest = static_cast<int32_t>(turn - (quarter << 30));
    constexpr double kTurn = 0x1.921fb54442d18p+2 * 0x1p-32;  // 2 pi / 2^32
    const double angle = static_cast<double>(rest) * kTurn;
    const double square = angle * angle;
    const double sine = angle * polynomial(square, kSine);
    const double cosine = polynomial(square, kCosine);
    switch (quarter) {
        case 0:
            return {cosine, sine};
        case 1:
            return {-sine, cosine};
        case 2:
            return {-cosine, -sine};
        default:
            return {sine, -cosine};
    }
}

}  // namespace

std::vector<float> normal_noise(uint64_t seed, uint32_t stream, size_t count) {
    const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed),
                                         static_cast<uint32_t>(seed >> 32)};
    std::vector<float> noise(count);
    for (size_t i = 0; i < count; i += 4) {
        const uint64_t block = i / 4;
        const auto random = reference::philox4x32(
            {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), stream, 0}, key);
        std::array<float, 4> normals;
        for (size_t pair = 0; pair < 4; pair += 2) {
            const double radius = std::sqrt(-2 * logarithm(reference::uniform(random[pair])));
            const auto [cosine, sine] = direction(random[pair + 1]);
            normals[pair] = static_cast<float>(radius * cosine);
            normals[pair + 1] = static_cast<float>(radius * sine);
        }
        for (size_t lane = 0; lane < 4 && i + lane < count; ++lane) noise[i + lane] = normals[lane];
    }
    return noise;
}

}  // namespace fovea
