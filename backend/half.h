#pragma once

#include <bit>
#include <cstdint>

/// Half precision on the CPU: weights are stored as IEEE 754 binary16 (fp16) or bfloat16 (bf16),
/// and tensors go to and from the device as fp16. Plain integer arithmetic, so every compiler and
/// rounding mode gives the same bits; NaNs come out quiet with their sign and upper payload bits,
/// as x86's F16C and Arm's FCVT convert them.
namespace fovea {

constexpr float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 0x1fu;
    const uint32_t fraction = half & 0x3ffu;
    if (exponent == 0x1f) {
        const uint32_t quiet = fraction != 0 ? 0x00400000u : 0u;
        return std::bit_cast<float>(sign | 0x7f800000u | quiet | fraction << 13);
    }
    if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
    // Subnormal: fraction * 2^-24, exact in fp32.
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

/// Rounds to nearest, ties to even; overflow becomes infinity, underflow a subnormal or a signed
/// zero.
constexpr uint16_t float_to_half(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // >= 65520

    // Drops the low `shift` bits; a carry out of the fraction raises the exponent, as it must.
    const auto round = [](uint32_t number, uint32_t shift) {
        const uint32_t half_unit = 1u << (shift - 1);
        const uint32_t odd = number >> shift & 1u;
        return (number + half_unit - 1 + odd) >> shift;
    };
    if (magnitude >= 0x38800000u)  // >= 2^-14: normal
        return static_cast<uint16_t>(sign | round(magnitude - (112u << 23), 13));
    if (magnitude <= 0x33000000u) return static_cast<uint16_t>(sign);  // <= 2^-25: the tie is even
    const uint32_t exponent = magnitude >> 23;                         // 102 ... 112
    const uint32_t significand = (magnitude & 0x007fffffu) | 0x00800000u;
    return static_cast<uint16_t>(sign | round(significand, 126 - exponent));
}

/// Exact: bf16 is the upper half of an fp32.
constexpr float bfloat16_to_float(uint16_t bfloat16) {
    return std::bit_cast<float>(static_cast<uint32_t>(bfloat16) << 16);
}

}  // namespace fovea
