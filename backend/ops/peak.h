#pragma once

#include "backend/tensor.h"

namespace fovea {

/// What a device reaches on kernels that do nothing else: the yardstick of benchmarks. Rates a
/// second; 0 where the device or the build lacks the units.
struct Peaks {
    double matrix = 0;       ///< FLOP/s of fp16 matrix products with fp32 sums, by way of Vulkan
    double fma = 0;          ///< FLOP/s of fp32 fused multiply-adds
    double bandwidth = 0;    ///< bytes/s of a read and a write of a big buffer, both counted
    std::string matrix_why;  ///< why there is no matrix rate
};

/// In about a second. Checks what the kernels computed, and throws Error where it is wrong or the
/// device has no timestamps.
Peaks measure_peaks(vk::Device& device);

}  // namespace fovea
