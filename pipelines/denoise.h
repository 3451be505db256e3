#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "backend/error.h"
#include "pipelines/model.h"
#include "pipelines/sampler.h"
#include "vision/image.h"

/// The walk from noise to latents and on to pixels that pictures and clips share.
namespace fovea {

/// The run was interrupted by its `cancel` flag.
class Cancelled : public Error {
  public:
    Cancelled() : Error("interrupted") {}
};

/// What pictures and clips ask for alike.
struct DenoiseRequest {
    std::string prompt;
    int steps = 24;
    float cfg = 3;  ///< classifier-free guidance; 1: none, and half the work
    Sampler sampler = Sampler::dpmpp2m;
    int preview_every = 0;  ///< steps between previews; 0: none

    std::function<void(int done, int total)> on_step;
    const std::atomic<bool>* cancel = nullptr;
};

/// A forward pass of the model on its walk; samplers may make several in a step.
struct Evaluation {
    int step, steps;
    float t;
};

/// What a method without training does in this pass. Asked before each one, in order.
using MethodHooks = std::function<DitHooks(const Evaluation&)>;

/// One request on its way: what stays the same over the steps.
class Denoiser {
  public:
    /// latent: shape of one sample, (height, width, channels) or (frames, height, width, channels).
    /// hooks: empty for the model as it was trained. All of these outlive the Denoiser.
    Denoiser(vk::Stream& stream, const Model& model, const DenoiseRequest& request, Shape latent,
             std::span<const uint64_t> seeds, MethodHooks hooks = {});

    /// Of clips: a picture's latent (1, height, width, channels) f32 that frame 0 keeps, given to
    /// the model without noise whatever the time.
    void hold_first_frame(const Tensor& latent);

    /// (samples, latent…) f32. Noise depends on the seed alone, not on the batch.
    Tensor start() const;

    /// Velocity with classifier-free guidance, v = v_u + cfg (v_c − v_u), fp32 as z: the sampler's
    /// sums over many steps are where fp16 would be seen first.
    Tensor velocity(const Tensor& z, const Evaluation& at) const;

    /// From noise to latents. on_preview gets the estimate of the end after every
    /// request.preview_every steps but the last. Throws Cancelled.
    Tensor run(const std::function<void(int step, const Tensor& z)>& on_preview = {}) const;

    /// Pixels of latents (n, height, width, channels). Throws Error where a value is not finite.
    std::vector<Image> decode(const Tensor& latents) const;

  private:
    Dit::Context encode_prompt() const;
    Tensor model_input(const Tensor& z) const;
    void put_first_frame(const Tensor& z) const;
    void check_cancel() const;

    vk::Stream& stream_;
    const Model& model_;
    const DenoiseRequest& request_;
    bool guided_;
    Shape shape_;  ///< (samples, latent…)
    std::vector<uint64_t> seeds_;
    MethodHooks hooks_;
    Tensor first_frame_;
    Dit::Context context_;
};

/// Throws Error for numbers that cannot be. `command` begins the message.
void validate(const DenoiseRequest& request, const char* command);

/// Throws Error where there is nothing to see on any of them.
void refuse_blank(std::span<const Image> pictures);

/// Sides of pictures and frames: the autoencoder's 8 pixels and patches of 2.
inline constexpr int kSideMultiple = 16;
inline constexpr int kMinSide = 128, kMaxSide = 512;
void validate_sides(int width, int height, const char* command);

}  // namespace fovea
