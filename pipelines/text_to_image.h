#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "pipelines/denoise.h"
#include "vision/layout.h"

namespace fovea {

struct TextToImage {
    static constexpr int64_t kMaxBatch = 16;

    struct Request : DenoiseRequest {
        std::vector<uint64_t> seeds{0};  ///< one picture each
        int width = 256, height = 256;
        std::string pattern;  ///< self-attention of every layer, as a spec; empty: what the model
                              ///< was trained with
        int64_t most_together = kMaxBatch;  ///< pictures in a batch
        bool allow_blank = false;           ///< for those who judge pictures themselves
        std::vector<LayoutBox> boxes;       ///< where things of `prompt` come, pipelines/layout.h
        std::vector<Subject> subjects;      ///< what they look like, each of a box
        std::function<void(int step, const std::vector<Image>&)> on_preview;
    };

    /// What can be known without a model. Throws Error.
    static void validate(const Request& request);

    /// One picture per seed. Throws Error for a request that cannot be, a NaN or a blank result,
    /// Cancelled.
    static std::vector<Image> run(vk::Stream& stream, const Model& model, const Request& request);

    /// Pictures computed together: as many as the device's bindings can hold, at most
    /// request.most_together. A picture is the same in every batch.
    static int64_t batch_size(const vk::DeviceInfo& device, const Model& model,
                              const Request& request);

    /// Pictures like that of the request that fit into half of the device's free memory together,
    /// at most 64, where larger batches gain nothing; few on a CPU, where four gain nothing.
    static int64_t fitting_batch(const vk::DeviceInfo& device, const Model& model, Request request);

    /// Times of one step and of decoding for all pictures of the request, from one batch's step and
    /// one picture's decoding.
    struct Probe {
        double step_seconds, decode_seconds;  ///< of a step in the mean, where guidance varies
        double passes;        ///< of the whole model a step and picture, in the mean
        uint64_t peak_bytes;  ///< device memory, weights included
        double total(int steps) const { return step_seconds * steps + decode_seconds; }
    };
    static Probe probe(vk::Stream& stream, const Model& model, const Request& request);
};

}  // namespace fovea
