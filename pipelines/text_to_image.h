#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "backend/error.h"
#include "pipelines/model.h"
#include "pipelines/sampler.h"
#include "vision/image.h"

namespace fovea {

/// The run was interrupted by its `cancel` flag.
class Cancelled : public Error {
  public:
    Cancelled() : Error("interrupted") {}
};

struct TextToImage {
    struct Request {
        std::string prompt;
        std::vector<uint64_t> seeds{0};  ///< one picture each
        int steps = 24;
        float cfg = 3;  ///< classifier-free guidance; 1: none, and half the work
        int width = 256, height = 256;
        Sampler sampler = Sampler::dpmpp2m;
        std::string pattern;    ///< self-attention of every layer, as a spec; empty: what the model
                                ///< was trained with
        int preview_every = 0;  ///< steps between previews; 0: none

        std::function<void(int done, int total)> on_step;
        std::function<void(int step, const std::vector<Image>&)> on_preview;
        const std::atomic<bool>* cancel = nullptr;
    };

    static constexpr int kMultiple = 16;  ///< sides are multiples: 8× autoencoder, patches of 2
    static constexpr int kMinSide = 128, kMaxSide = 512;
    static constexpr int64_t kMaxBatch = 16;

    /// One picture per seed. Throws Error for a request that cannot be, a NaN or a blank result,
    /// Cancelled.
    static std::vector<Image> run(vk::Stream& stream, const Model& model, const Request& request);

    /// Pictures computed together: as many as the device's bindings can hold, at most kMaxBatch. A
    /// picture is the same in every batch.
    static int64_t batch_size(const vk::DeviceInfo& device, const Model& model,
                              const Request& request);

    /// Times of one step and of decoding for all pictures of the request, from one batch's step and
    /// one picture's decoding.
    struct Probe {
        double step_seconds, decode_seconds;
        uint64_t peak_bytes;  ///< device memory, weights included
        double total(int steps) const { return step_seconds * steps + decode_seconds; }
    };
    static Probe probe(vk::Stream& stream, const Model& model, const Request& request);
};

}  // namespace fovea
