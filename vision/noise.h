#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fovea {

/// The noise a picture starts from: `count` independent numbers of the standard normal
/// distribution, the same bits on every device, driver and compiler (backend/reference/noise.h).
/// Element i depends on (seed, stream, i) only: a longer request begins with the shorter one.
/// Streams of one seed are independent, for example one per picture of a batch. No value is beyond
/// ±6.34.
std::vector<float> normal_noise(uint64_t seed, uint32_t stream, size_t count);

}  // namespace fovea
