#pragma once

#include <functional>

#include "backend/ops/attention.h"
#include "backend/ops/device_list.h"

/// Attention over block lists that are not a pattern's: for ops that make them on the device.
namespace fovea {

struct ListSource {
    TileShape granularity;  ///< tiles are to divide it where they can
    /// The list in the kernel's own tiles, made once a call.
    std::function<DeviceList(vk::Stream&, TileShape tile)> make;
};

/// As attention().
Tensor attention_over(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                      const ListSource& lists, const AttentionOptions& options);

}  // namespace fovea
