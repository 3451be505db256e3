#version 460
// Standard normal numbers, the same bits on every device: Philox4x32-10, then the inverse normal
// CDF by a table of lines (backend/reference/noise.h says how it is made). Only integer operations
// and `precise` fp32 multiplication and addition, which Vulkan wants correctly rounded; halves are
// rounded in integers, because Vulkan leaves the rounding of conversions open.
#extension GL_GOOGLE_include_directive : require
#ifdef STORAGE_F16
#extension GL_EXT_shader_16bit_storage : require
#define Number uint16_t
#define number(z) uint16_t(half_bits(z))
#else
#define Number float
#define number(z) z
#endif
#include "common/index.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer Y { Number y[]; };
layout(set = 0, binding = 1) readonly buffer Table { vec2 table[]; };  // (octave, piece)
layout(push_constant) uniform Push { NoiseParams p; };

uvec4 philox(uvec4 counter, uvec2 key) {
    for (int round = 0; round < 10; ++round) {
        uint high0, low0, high1, low1;
        umulExtended(0xD2511F53, counter.x, high0, low0);
        umulExtended(0xCD9E8D57, counter.z, high1, low1);
        counter = uvec4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
        key += uvec2(0x9E3779B9, 0xBB67AE85);
    }
    return counter;
}

// Bit 31 is the sign; the tail's probability is (the rest + 1/2) / 2^32.
float normal(uint random) {
    const uint tail = random & 0x7fffffff;
    const uint octave = tail == 0 ? 31 : 30 - uint(findMSB(tail));
    const uint fraction = tail == 0 ? 0 : tail << (octave + 1) << 1;  // below the leading 1
    const vec2 line = table[octave * 64 + (fraction >> 26)];
    precise const float step = line.y * float(fraction >> 2 & 0xffffff);
    precise const float z = line.x + step;
    return uintBitsToFloat(floatBitsToUint(z) ^ (random & 0x80000000));
}

// Bits of z as a half: to nearest, ties to even; |z| < 8.
uint half_bits(float z) {
    const uint bits = floatBitsToUint(z);
    const uint magnitude = bits & 0x7fffffff;
    const uint sign = bits >> 16 & 0x8000;
    const uint exponent = magnitude >> 23;
    if (exponent < 102) return sign;
    // Mantissa bits that a half does not hold: 13, and more where it is subnormal.
    const bool subnormal = exponent < 113;
    const uint drop = subnormal ? 126 - exponent : 13;
    const uint kept = subnormal ? (magnitude & 0x7fffff) | 0x800000 : magnitude - (112u << 23);
    const uint half_less = (1u << (drop - 1)) - 1;
    return sign | (kept + half_less + (kept >> drop & 1)) >> drop;
}

void main() {
    const uint block = linear_invocation();
    if (block >= p.blocks) return;
    const uvec4 random = philox(uvec4(block, 0, p.stream, 0), uvec2(p.seed_low, p.seed_high));
    for (uint k = 0; k < 4 && 4 * block + k < p.count; ++k)
        y[4 * block + k] = number(normal(random[k]));
}
