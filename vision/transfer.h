#pragma once

#include <vector>

#include "backend/tensor.h"
#include "vision/image.h"

namespace fovea {

/// Pictures of one size → (batch, height, width, 3) on the device.
Tensor to_device(vk::Stream& stream, const std::vector<Image>& pictures, DType dtype);

/// (batch, height, width, 3) → pictures, clamped to [0, 1]. Waits.
std::vector<Image> to_images(vk::Stream& stream, const Tensor& pictures);

}  // namespace fovea
