#pragma once

#include <functional>
#include <span>
#include <vector>

#include "backend/tensor.h"
#include "pipelines/schedule.h"

namespace fovea {

/// Walks a latent from noise to picture on the device: linear combinations of what the model
/// returns.
class FlowSampler {
  public:
    using Model = std::function<Tensor(const Tensor& z, float t)>;  ///< → velocity

    FlowSampler(Sampler sampler, std::vector<float> times);

    /// Step i of times.size() − 1, in order; the first ones may be left out.
    Tensor step(vk::Stream& stream, const Tensor& z, int i, const Model& model);

    /// The estimate of the picture at the last step: what a preview shows.
    const Tensor& denoised() const { return denoised_; }

  private:
    Sampler sampler_;
    std::vector<float> times_;
    Tensor denoised_;
};

}  // namespace fovea
