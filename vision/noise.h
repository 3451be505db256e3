#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

/// The noise a picture starts from. A seed must give the same picture's noise on every device,
/// driver and compiler, so it is always made here, on the CPU, and uploaded: drivers' log, sin and
/// cos may differ in their last bits (Vulkan grants them several ulp), and so do C libraries'. Only
/// operations that IEEE 754 rounds in one way are used: + - * / sqrt and explicit fma in double,
/// whose result no compiler can change by contracting other operations. Cost: about 10 million
/// numbers a second and core, while a 256x256 picture needs 12 thousand.
namespace fovea {

/// `count` independent numbers of the standard normal distribution. Element i depends on (seed,
/// stream, i) only: a longer request begins with the shorter one. Streams of one seed are
/// independent, for example one per picture of a batch. Method: Philox4x32-10 with key = seed and
/// counter = (i / 4 in 64 bits, stream, 0), then Box-Muller on its first and on its second pair of
/// numbers. No value is beyond +-6.67.
std::vector<float> normal_noise(uint64_t seed, uint32_t stream, size_t count);

}  // namespace fovea
