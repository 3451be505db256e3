#include "pipelines/denoise.h"

#include <cmath>

#include "backend/ops/elementwise.h"
#include "backend/ops/reduce.h"
#include "vision/noise.h"
#include "vision/transfer.h"

namespace fovea {
namespace {

constexpr double kBlankDeviation = 0.004;  // one of 255 steps: nothing to see

}  // namespace

void refuse_blank(std::span<const Image> pictures) {
    double sum = 0, squares = 0, count = 0;
    for (const Image& picture : pictures)
        for (const float value : picture.rgb) {
            sum += value;
            squares += double{value} * value;
            count += 1;
        }
    const double mean = sum / count, deviation = std::sqrt(squares / count - mean * mean);
    require(deviation >= kBlankDeviation,
            "[generate] the picture is blank (standard deviation {:.5f}); nothing was written. Try "
            "another seed, more steps or a lower --cfg",
            deviation);
}

void validate(const DenoiseRequest& request, const char* command) {
    require(request.steps >= 1, "[{}] {} steps found, expected at least 1", command, request.steps);
    require(request.cfg >= 0, "[{}] cfg {} found, expected 0 or more", command, request.cfg);
}

void validate_sides(int width, int height, const char* command) {
    const auto side = [&](const char* name, int value) {
        require(value >= kMinSide && value <= kMaxSide && value % kSideMultiple == 0,
                "[{}] {} {} found, expected a multiple of {} from {} to {}", command, name, value,
                kSideMultiple, kMinSide, kMaxSide);
    };
    side("width", width);
    side("height", height);
}

Denoiser::Denoiser(vk::Stream& stream, const Model& model, const DenoiseRequest& request,
                   Shape latent, std::span<const uint64_t> seeds, MethodHooks hooks)
    : stream_(stream),
      model_(model),
      request_(request),
      guided_(request.cfg != 1),
      shape_(std::move(latent)),
      seeds_(seeds.begin(), seeds.end()),
      hooks_(std::move(hooks)) {
    shape_.insert(shape_.begin(), std::ssize(seeds_));
    context_ = encode_prompt();
}

Dit::Context Denoiser::encode_prompt() const {
    const auto length = static_cast<int>(model_.text.config().length);
    const auto prompt = model_.tokenizer.encode(request_.prompt, length).ids;
    const auto nothing = model_.tokenizer.encode("", length).ids;
    std::vector<int32_t> ids;
    for (size_t i = 0; i < seeds_.size(); ++i) ids.insert(ids.end(), prompt.begin(), prompt.end());
    if (guided_)
        for (size_t i = 0; i < seeds_.size(); ++i)
            ids.insert(ids.end(), nothing.begin(), nothing.end());
    return model_.dit.context(stream_, model_.text.forward(stream_, ids));
}

void Denoiser::hold_first_frame(const Tensor& latent) {
    const Shape expected{1, shape_[2], shape_[3], shape_.back()};
    require(shape_.size() == 5 && latent.shape() == expected && latent.dtype() == DType::f32,
            "[denoise] the first frame's latent is {} where clips are {}",
            to_string(latent.shape()), to_string(shape_));
    first_frame_ = latent;
}

Tensor Denoiser::start() const {
    size_t each = 1;
    for (size_t axis = 1; axis < shape_.size(); ++axis) each *= static_cast<size_t>(shape_[axis]);
    std::vector<float> values;
    for (const uint64_t seed : seeds_) {
        const auto noise = normal_noise(seed, 0, each);
        values.insert(values.end(), noise.begin(), noise.end());
    }
    return upload(stream_, values, shape_, DType::f32);
}

void Denoiser::put_first_frame(const Tensor& z) const {
    if (!first_frame_) return;
    const int64_t frames = z.dim(1);
    const Tensor all = z.reshape({z.dim(0) * frames, z.dim(2), z.dim(3), z.dim(4)});
    for (int64_t i = 0; i < z.dim(0); ++i)
        stream_.copy(read(first_frame_), write(all.slice(i * frames, 1)));
}

// Twice with guidance, and with the first frame as it is held.
Tensor Denoiser::model_input(const Tensor& z) const {
    if (!guided_ && !first_frame_) return convert(stream_, z, model_.dtype);
    const int64_t n = z.dim(0), copies = guided_ ? 2 : 1;
    Shape shape = z.shape();
    shape[0] = copies * n;
    const Tensor input = empty(stream_.device(), shape, z.dtype());
    for (int64_t i = 0; i < copies; ++i) stream_.copy(read(z), write(input.slice(i * n, n)));
    put_first_frame(input);
    return convert(stream_, input, model_.dtype);
}

Tensor Denoiser::velocity(const Tensor& z, const Evaluation& at) const {
    const DitHooks hooks = hooks_ ? hooks_(at) : DitHooks{};
    const Tensor v = convert(
        stream_, model_.dit.forward(stream_, model_input(z), at.t, context_, hooks), DType::f32);
    if (!guided_) return v;
    const int64_t n = z.dim(0);
    const Term terms[] = {{request_.cfg, v.slice(0, n)}, {1 - request_.cfg, v.slice(n, n)}};
    return linear_combination(stream_, terms);
}

void Denoiser::check_cancel() const {
    if (request_.cancel && *request_.cancel) throw Cancelled();
}

Tensor Denoiser::run(const std::function<void(int step, const Tensor& z)>& on_preview) const {
    const int steps = request_.steps;
    const bool clip = shape_.size() == 5;
    FlowSampler sampler(request_.sampler,
                        flow_times(steps, clip ? model_.dit.config().clip_shift : 1));
    Tensor z = start();
    for (int i = 0; i < steps; ++i) {
        check_cancel();
        z = sampler.step(stream_, z, i, [&](const Tensor& at, float t) {
            return velocity(at, {.step = i, .steps = steps, .t = t});
        });
        stream_.wait();
        if (request_.on_step) request_.on_step(i + 1, steps);
        const bool due = request_.preview_every > 0 && (i + 1) % request_.preview_every == 0;
        if (on_preview && due && i + 1 < steps) {
            put_first_frame(sampler.denoised());
            on_preview(i + 1, sampler.denoised());
        }
    }
    check_cancel();
    put_first_frame(z);
    return z;
}

std::vector<Image> Denoiser::decode(const Tensor& latents) const {
    const Tensor pictures =
        model_.autoencoder.decode(stream_, convert(stream_, latents, model_.dtype));
    // Latents are checked as well: a NaN can vanish in the decoder, whose ReLU may turn it into 0.
    const Statistics latent = statistics(stream_, latents), picture = statistics(stream_, pictures);
    const int64_t nan = latent.nan + picture.nan, infinite = latent.inf + picture.inf;
    require(nan == 0 && infinite == 0,
            "[generate] the result has {} NaN and {} infinite values; nothing was written. Try a "
            "lower --cfg or --precision fp32, and please report the settings",
            nan, infinite);
    return to_images(stream_, pictures);
}

}  // namespace fovea
