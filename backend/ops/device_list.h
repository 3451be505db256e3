#pragma once

#include <optional>

#include "backend/patterns/pattern.h"
#include "backend/tensor.h"
#include "backend/vk/stream.h"

namespace fovea {

/// The lists of a pattern in device memory, as shaders/attention/list_params.h says.
struct DeviceList {
    Tensor words;
    uint32_t list_words;  ///< from the header of a head to the next; 0: one list for all heads
    uint32_t sample_words = 0;  ///< from those of a sample to the next; 0: shared by all samples
    uint32_t query_tiles;       ///< of every head
    uint32_t longest_row;       ///< blocks
    bool ordered;               ///< slots are not tokens
    bool turns = false;         ///< work is uneven, and begun with what takes longest
    std::optional<uint32_t> key_tiles;  ///< without those of extra keys; absent where heads differ
    uint32_t most_key_tiles;            ///< of a head
};

/// Made when first asked for, then shared by all heads that are alike, layers, steps and ops.
DeviceList device_list(vk::Stream& stream, const Pattern& pattern, TileShape tile, uint32_t q_len,
                       uint32_t kv_len, uint32_t extra_len = 0);

}  // namespace fovea
