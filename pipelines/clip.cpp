#include "pipelines/clip.h"

#include <fmt/format.h>

#include <algorithm>

#include "pipelines/denoise.h"

namespace fovea {
namespace {

std::string text_of(const ClipShape& shape) {
    return shape.frames == 1
               ? fmt::format("a picture of {}x{}", shape.width, shape.height)
               : fmt::format("{} frames at {}x{}", shape.frames, shape.width, shape.height);
}

// Fewer frames, or else smaller ones; empty: nothing fits.
std::string fitting(const std::function<bool(const ClipShape&)>& fits, const ClipShape& shape,
                    int least_frames) {
    ClipShape less = shape;
    while (less.frames > least_frames) {
        --less.frames;
        if (fits(less)) return text_of(less);
    }
    less.frames = shape.frames;
    const int longer = std::max(shape.width, shape.height);
    for (int side = longer - kSideMultiple; side >= kMinSide; side -= kSideMultiple) {
        const auto scaled = [&](int old) {
            return std::max(old * side / longer / kSideMultiple * kSideMultiple, kMinSide);
        };
        less.width = scaled(shape.width);
        less.height = scaled(shape.height);
        if (fits(less)) return text_of(less);
    }
    return {};
}

}  // namespace

ClipLimits clip_limits(const DitConfig& config) {
    require(config.frames > 0,
            "[video] this model makes pictures only: its dit.safetensors says nothing of clips, "
            "\"frames\" in its config; expected a model trained on clips, such as the default one");
    const auto number = [](int64_t value) { return static_cast<int>(value); };
    return {.frames = number(config.frames),
            .fps = number(config.fps),
            .size = number(config.clip_size),
            .least_frames = number(config.frame_range[0]),
            .most_frames = number(config.frame_range[1])};
}

Shape ClipShape::latents(const Model& model) const {
    return {frames, height / Autoencoder::kDown, width / Autoencoder::kDown,
            model.dit.config().latent_channels};
}

DitGrid ClipShape::grid(const Model& model) const {
    Shape clips = latents(model);
    clips.insert(clips.begin(), 1);
    return model.dit.grid(clips);
}

ClipMemory clip_memory(vk::Stream& stream, const Model& model, const ClipShape& shape,
                       int64_t samples, int64_t decoded) {
    stream.wait();  // what weights were uploaded through is gone then
    const auto& dit = model.dit.config();
    const auto element = static_cast<int64_t>(bytes_of(model.dtype));
    const DitGrid grid = shape.grid(model);
    const int64_t tokens = samples * grid[0] * grid[1] * grid[2];
    // Of the width, in a block at once: its input and that of the first, normed, q, k, o, the
    // output; then qkv and the hidden layer.
    const int64_t block = tokens * (7 * dit.width + 3 * dit.width + dit.hidden) * element;
    // The decoder's maps of 64 channels: three or so at every resolution.
    const int64_t pixels = decoded * shape.width * shape.height;
    const int64_t map = pixels * 64 * element;
    const int64_t decode = 4 * map * 21 / 16 + pixels * 3 * (element + 4);
    return {.weights = stream.device().allocated(),
            .activations = static_cast<uint64_t>(block),
            .decode = static_cast<uint64_t>(decode),
            .widest = static_cast<uint64_t>(
                std::max(tokens * std::max(3 * dit.width, dit.hidden) * element, map))};
}

void require_fits(const vk::DeviceInfo& device, const char* command, const ClipShape& shape,
                  int least_frames, const std::function<ClipMemory(const ClipShape&)>& memory,
                  uint64_t available) {
    const uint64_t binding = device.limits.storage_buffer_range;
    if (available == 0) available = device.memory_free > 0 ? device.memory_free : device.memory;
    const auto fits = [&](const ClipShape& wanted) {
        const ClipMemory need = memory(wanted);
        return need.total() <= available && need.widest <= binding;
    };
    if (fits(shape)) return;
    const ClipMemory need = memory(shape);
    const auto mebibytes = [](uint64_t bytes) { return bytes >> 20; };
    const std::string why =
        need.total() > available
            ? fmt::format("needs about {} MiB of device memory, {} MiB are free",
                          mebibytes(need.total()), mebibytes(available))
            : fmt::format("needs a tensor of {} MiB, the device's shaders see at most {} MiB",
                          mebibytes(need.widest), mebibytes(binding));
    const std::string less = fitting(fits, shape, least_frames);
    fail("[{}] {}: {}. {}", command, text_of(shape), why,
         less.empty() ? fmt::format("No {} fits: choose another device with --device",
                                    shape.frames == 1 ? "picture" : "clip")
                      : less + " would fit");
}

}  // namespace fovea
