#pragma once

#include <cstdint>
#include <functional>

#include "pipelines/model.h"

/// What makes clips from text and what edits them have in common.
namespace fovea {

/// What a model was trained to make.
struct ClipLimits {
    int frames, fps, size;
    int least_frames, most_frames;
};
/// Throws Error for a model of pictures only.
ClipLimits clip_limits(const DitConfig& config);

struct ClipShape {
    int frames = 1, width = 0, height = 0;  ///< pixels
    /// (frames, height, width, channels)
    Shape latents(const Model& model) const;
    DitGrid grid(const Model& model) const;
};

/// Bytes of device memory, before any work.
struct ClipMemory {
    uint64_t weights;      ///< what the model holds on the device now
    uint64_t activations;  ///< of the transformer, latents with them
    uint64_t decode;       ///< of the autoencoder, for frames that are decoded at once
    uint64_t widest;       ///< the largest tensor, which a binding must hold
    /// Freed memory is used again only for tensors of its size, so it adds up.
    uint64_t total() const { return weights + activations + decode; }
};

/// Of `samples` clips at once in the transformer, without their latents, and `decoded` frames at
/// once in the autoencoder.
ClipMemory clip_memory(vk::Stream& stream, const Model& model, const ClipShape& shape,
                       int64_t samples, int64_t decoded);

/// Throws Error, with what would fit, where `memory` is more than `available` bytes (0: what the
/// device has free) or a tensor more than the device's shaders can see. `command` begins the
/// message, least_frames is the shortest clip to propose.
void require_fits(const vk::DeviceInfo& device, const char* command, const ClipShape& shape,
                  int least_frames, const std::function<ClipMemory(const ClipShape&)>& memory,
                  uint64_t available = 0);

}  // namespace fovea
