#pragma once

#include <functional>
#include <vector>

#include "pipelines/denoise.h"
#include "vision/layout.h"

namespace fovea {

/// Brings things of a prompt to their boxes, without training or gradients. Each is drafted by
/// itself in the first part of the steps, found in its draft by the map of its words, and set into
/// its box on a draft of what is around. From that picture, mixed with noise, the prompt goes on;
/// tokens of a box hear the words of its thing alone. A thing of which a picture is given is not
/// drafted, but set into its box as it is, and kept like that by self-attention to this canvas:
/// reposition, after IR-Diffusion (arXiv 2411.19261). docs/guidance.md.
class Layout {
  public:
    /// Throws Error for boxes and subjects that cannot be. subjects: of boxes of their names.
    /// stream and model outlive the Layout.
    Layout(vk::Stream& stream, const Model& model, const DenoiseRequest& request,
           const std::vector<LayoutBox>& boxes, const std::vector<Subject>& subjects, int width,
           int height);

    /// Of a request with so many steps: those that the drafts take, and the first that follows.
    static int draft_steps(int steps);
    static int first_step(int steps);

    /// Drafts of a seed.
    int64_t drafts() const { return std::ssize(drafted_) + 1; }

    /// Of one seed, (1, height, width, channels) f32.
    struct Start {
        Tensor z;       ///< where the walk goes on, at the time of first_step()
        Tensor canvas;  ///< the same without noise
    };
    /// Throws Cancelled.
    Start start(uint64_t seed, const std::function<void(int done)>& on_step = {}) const;

    /// For Denoiser::say_by_region().
    RegionTexts texts() const;

    /// As ReferenceInjection has it; absent where no box has a subject.
    const Tensor& subject_mask() const { return mask_; }

  private:
    struct Drafts {
        std::vector<Image> pictures;            ///< of each drafted thing, then of what is around
        std::vector<std::vector<float>> heats;  ///< (tokens) of each thing: least 0, most 1
    };
    Drafts draw_drafts(uint64_t seed, const std::function<void(int done)>& on_step) const;

    vk::Stream& stream_;
    const Model& model_;
    DenoiseRequest request_;  ///< of the drafts
    std::vector<LayoutBox> boxes_;
    std::vector<std::vector<size_t>> places_;  ///< of each box's name in its draft's prompt
    std::map<size_t, Subject> subjects_;       ///< by box
    std::vector<size_t> drafted_;              ///< the other boxes
    Tensor mask_;
    int width_, height_;
    Shape latent_;
    DitGrid grid_;
};

}  // namespace fovea
