#pragma once

#include <cstdint>

#include "backend/tensor.h"

namespace fovea {

/// Independent standard normal numbers, f32 or f16. Element i depends on (seed, stream_id, i) only
/// and has the same bits on every device, and as reference::noise on the host; f16 is the f32
/// number rounded to nearest even.
Tensor noise(vk::Stream& stream, Shape shape, uint64_t seed, uint32_t stream_id,
             DType dtype = DType::f32);

}  // namespace fovea
