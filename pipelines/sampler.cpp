#include "pipelines/sampler.h"

#include "backend/error.h"
#include "backend/ops/elementwise.h"

namespace fovea {
namespace {

Tensor combine(vk::Stream& stream, const Update& update, const Tensor& z, const Tensor& v,
               const Tensor& previous) {
    std::vector<Term> terms{{update.z, z}, {update.velocity, v}};
    if (update.previous != 0) terms.push_back({update.previous, previous});
    return linear_combination(stream, terms);
}

}  // namespace

FlowSampler::FlowSampler(Sampler sampler, std::vector<float> times)
    : sampler_(sampler), times_(std::move(times)) {
    require(times_.size() >= 2, "[sampler] at least two times expected, found {}", times_.size());
}

Tensor FlowSampler::step(vk::Stream& stream, const Tensor& z, int i, const Model& model) {
    const auto index = static_cast<size_t>(i);
    const float t = times_[index], next = times_[index + 1];
    const Tensor v = model(z, t);
    const Tensor before = denoised_;
    denoised_ = combine(stream, {.z = 1, .velocity = -t, .previous = 0}, z, v, {});
    switch (sampler_) {
        case Sampler::euler:
            break;
        case Sampler::heun: {
            if (next == 0)
                break;  // the model was not trained to say anything at a time of exactly 0
            const Tensor v_next = model(combine(stream, euler_update(t, next), z, v, {}), next);
            const float half = 0.5f * (next - t);
            const Term terms[] = {{1, z}, {half, v}, {half, v_next}};
            return linear_combination(stream, terms);
        }
        case Sampler::dpmpp2m: {
            const float previous = before ? times_[index - 1] : 2.0f;
            return combine(stream, dpmpp2m_update(previous, t, next), z, v, before);
        }
    }
    return combine(stream, euler_update(t, next), z, v, {});
}

}  // namespace fovea
