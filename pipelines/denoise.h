#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/error.h"
#include "pipelines/model.h"
#include "pipelines/sampler.h"
#include "vision/guidance/combine.h"
#include "vision/guidance/perturb.h"
#include "vision/image.h"
#include "vision/taps/inject.h"

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
    std::vector<std::string> each_prompt;  ///< instead of `prompt`: one a seed
    int steps = 24;
    float cfg = 3;               ///< classifier-free guidance; 1: none, and half the work
    Guidance guidance;           ///< instead of cfg where it has terms
    bool entropy_scale = false;  ///< vision/methods/entropy.h: for sizes of no training
    bool share_branches = true;  ///< compute once what branches of guidance have in common
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

/// A part of the walk: from step `first`, where z is (absent: Denoiser::start()), to step `last`
/// (−1: to the end). `estimate` receives that of the end.
struct WalkPart {
    Tensor z;
    int first = 0, last = -1;
    Tensor* estimate = nullptr;
};

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

    /// Of pictures: where `open` is 0 the velocity is that from `latent` to the noise of start(),
    /// whatever the model says, so that every sampler leaves this on its way to `latent`; where it
    /// is 1 the model's. Both (samples, latent…) f32.
    void hold(const Tensor& latent, const Tensor& open);
    /// Of pictures: in steps before `until` each token hears what its region's text says, instead
    /// of the prompt.
    void say_by_region(RegionTexts texts, int until);

    /// (samples, latent…) f32. Noise depends on the seed alone, not on the batch.
    Tensor start() const;

    /// Guided velocity (vision/guidance/combine.h), all branches in one pass; fp32 as z: the
    /// sampler's sums over many steps are where fp16 would be seen first.
    Tensor velocity(const Tensor& z, const Evaluation& at) const;

    /// Steps with branches of their own: the first of each kind, and how many there are.
    struct StepKind {
        int step, count;
    };
    std::vector<StepKind> step_kinds() const;
    /// mean_passes() of the request.
    double mean_passes() const;

    /// From noise to latents. on_preview gets the estimate of the end after every
    /// request.preview_every steps but the last. Throws Cancelled.
    Tensor run(const std::function<void(int step, const Tensor& z)>& on_preview = {},
               const WalkPart& part = {}) const;

    /// Pixels of latents (n, height, width, channels). Throws Error where a value is not finite.
    std::vector<Image> decode(const Tensor& latents) const;
    /// The same one after the other: the decoder's maps are the largest tensors of all.
    std::vector<Image> decode_singly(const Tensor& latents) const;

  private:
    /// What steps with the same branches have in common.
    struct Branches {
        BranchLayout layout;
        std::vector<size_t> terms;  ///< of the guidance, one a perturbed branch of the layout
        Dit::Context context;
    };
    /// Which terms are due.
    std::vector<bool> due(int step, int steps) const;
    const Branches& branches(int step, int steps) const;
    Dit::Context encode(const BranchLayout& layout) const;
    Tensor model_input(const Tensor& z, int64_t copies) const;
    void put_first_frame(const Tensor& z) const;
    void check_cancel() const;
    std::vector<Image> checked(const Tensor& latents, const Tensor& pictures) const;

    vk::Stream& stream_;
    const Model& model_;
    const DenoiseRequest& request_;
    Guidance guidance_;
    Shape shape_;  ///< (samples, latent…)
    std::vector<uint64_t> seeds_;
    MethodHooks hooks_;
    Tensor first_frame_;
    Tensor open_, held_;  ///< of hold(): where the model is asked, and the velocity elsewhere
    RegionTexts regions_;
    int regions_until_ = 0;
    std::vector<float> entropy_factors_;                                   ///< a layer, or none
    std::map<size_t, std::shared_ptr<const Perturbation>> perturbations_;  ///< by term
    mutable std::map<std::vector<bool>, Branches> branches_;               ///< as they come
    mutable Combination combination_;
};

/// What the request steers by: its guidance, or cfg.
Guidance guidance_of(const DenoiseRequest& request);

/// (1, …) each, one after the other.
Tensor stacked(vk::Stream& stream, const std::vector<Tensor>& samples);

/// Rows of activations that a sample of width × height pixels has with all its branches of
/// guidance.
int64_t rows_of_sample(const Model& model, const DenoiseRequest& request, int width, int height);

/// Such samples whose widest activations a binding of the device holds: at least 1.
int64_t samples_that_bind(const vk::DeviceInfo& device, const Model& model,
                          const DenoiseRequest& request, int width, int height);
/// Throws Error where guidance and what a method keeps from step to step exclude each other:
/// branches that are not there at every step, or without a layer. `remembers`: attention does,
/// `features`: a cache.
void validate_methods(const DenoiseRequest& request, bool remembers, bool features);

/// Throws Error for numbers that cannot be. `command` begins the message.
void validate(const DenoiseRequest& request, const char* command);

/// Throws Error where there is nothing to see on any of them. `command` begins the message.
void refuse_blank(std::span<const Image> pictures, const char* command = "generate");

/// Sides of pictures and frames: the autoencoder's 8 pixels and patches of 2.
inline constexpr int kSideMultiple = 16;
inline constexpr int kMinSide = 128, kMaxSide = 512;
void validate_sides(int width, int height, const char* command);

}  // namespace fovea
