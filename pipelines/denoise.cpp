#include "pipelines/denoise.h"

#include <algorithm>
#include <cmath>

#include "backend/ops/elementwise.h"
#include "backend/ops/reduce.h"
#include "vision/methods/entropy.h"
#include "vision/noise.h"
#include "vision/transfer.h"

namespace fovea {
namespace {

constexpr double kBlankDeviation = 0.004;  // one of 255 steps: nothing to see

}  // namespace

void refuse_blank(std::span<const Image> pictures, const char* command) {
    double sum = 0, squares = 0, count = 0;
    for (const Image& picture : pictures)
        for (const float value : picture.rgb) {
            sum += value;
            squares += double{value} * value;
            count += 1;
        }
    const double mean = sum / count, deviation = std::sqrt(squares / count - mean * mean);
    require(
        deviation >= kBlankDeviation,
        "[{}] the {} is blank (standard deviation {:.5f}); nothing was written. Try another seed, "
        "more steps or a lower --cfg",
        command, pictures.size() == 1 ? "picture" : "clip", deviation);
}

void validate(const DenoiseRequest& request, const char* command) {
    require(request.steps >= 1, "[{}] {} steps found, expected at least 1", command, request.steps);
    require(request.cfg >= 0, "[{}] cfg {} found, expected 0 or more", command, request.cfg);
    const int zero = guidance_of(request).zero_steps();
    require(zero < request.steps,
            "[{}] cfgzero with zero={} found, expected fewer than the {} steps", command, zero,
            request.steps);
}

Guidance guidance_of(const DenoiseRequest& request) {
    return request.guidance.terms.empty() ? cfg_guidance(request.cfg) : request.guidance;
}

void validate_methods(const DenoiseRequest& request, bool remembers, bool features) {
    if (!remembers && !features) return;
    const char* method = remembers ? "rettention" : "a cache of features";
    const Guidance guidance = guidance_of(request);
    require(!guidance.varies(request.steps),
            "[guidance] terms that act at some steps found beside {}, expected all at every step: "
            "leave out steps= and every=",
            method);
    for (const GuidanceTerm& term : guidance.terms)
        require(term.of_text() || (!remembers && term.kind != GuidanceKind::skip),
                "[guidance] {} found beside {}, expected {}", name_of(term.kind), method,
                remembers ? "cfg, apg or cfgzero alone" : "no skip");
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
      guidance_(guidance_of(request)),
      shape_(std::move(latent)),
      seeds_(seeds.begin(), seeds.end()),
      hooks_(std::move(hooks)),
      combination_(guidance_) {
    shape_.insert(shape_.begin(), std::ssize(seeds_));
    fovea::validate(guidance_, model.dit.config());
    if (request.entropy_scale)
        entropy_factors_ = entropy_factors(model.dit, model.dit.grid(shape_));
    for (size_t i = 0; i < guidance_.terms.size(); ++i)
        if (!guidance_.terms[i].of_text())
            perturbations_[i] = std::make_shared<const Perturbation>(stream, guidance_.terms[i],
                                                                     model.dit.config());
}

std::vector<bool> Denoiser::due(int step, int steps) const {
    std::vector<bool> due;
    for (const GuidanceTerm& term : guidance_.terms) due.push_back(term.is_due(step, steps));
    return due;
}

const Denoiser::Branches& Denoiser::branches(int step, int steps) const {
    const auto due = this->due(step, steps);
    const auto [found, is_new] = branches_.try_emplace(due);
    Branches& b = found->second;
    if (!is_new) return b;
    for (size_t i = 0; i < due.size(); ++i)
        if (due[i] && !guidance_.terms[i].of_text()) b.terms.push_back(i);
    std::stable_sort(b.terms.begin(), b.terms.end(), [&](size_t one, size_t other) {
        return perturbations_.at(one)->first_layer() < perturbations_.at(other)->first_layer();
    });
    b.layout.count = std::ssize(seeds_);
    for (size_t i = 0; i < due.size(); ++i)
        b.layout.unprompted |= due[i] && guidance_.terms[i].of_text();
    for (const size_t i : b.terms) b.layout.perturbed.push_back(perturbations_.at(i));
    b.context = encode(b.layout);
    return b;
}

std::vector<Denoiser::StepKind> Denoiser::step_kinds() const {
    std::map<std::vector<bool>, StepKind> kinds;
    for (int i = guidance_.zero_steps(); i < request_.steps; ++i)
        ++kinds.try_emplace(due(i, request_.steps), StepKind{i, 0}).first->second.count;
    std::vector<StepKind> list;
    for (const auto& [key, kind] : kinds) list.push_back(kind);
    return list;
}

double Denoiser::mean_passes() const {
    std::vector<Perturbation> all;
    for (const auto& [term, perturbation] : perturbations_) all.push_back(*perturbation);
    return fovea::mean_passes(guidance_, all, model_.dit.config().layers, request_.steps);
}

Dit::Context Denoiser::encode(const BranchLayout& layout) const {
    const auto length = static_cast<int>(model_.text.config().length);
    const auto& each = request_.each_prompt;
    require(each.empty() || each.size() == seeds_.size(),
            "[denoise] {} prompts found for {} seeds, expected one each", each.size(),
            seeds_.size());
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < layout.rows(); ++i) {
        const bool unprompted = layout.unprompted && i / layout.count == 1;
        const auto& own =
            each.empty() ? request_.prompt : each[static_cast<size_t>(i % layout.count)];
        const auto words = model_.tokenizer.encode(unprompted ? "" : own, length).ids;
        ids.insert(ids.end(), words.begin(), words.end());
    }
    return model_.dit.context(stream_, model_.text.forward(stream_, ids));
}

void Denoiser::hold_first_frame(const Tensor& latent) {
    const Shape expected{1, shape_[2], shape_[3], shape_.back()};
    require(shape_.size() == 5 && latent.shape() == expected && latent.dtype() == DType::f32,
            "[denoise] the first frame's latent is {} where clips are {}",
            to_string(latent.shape()), to_string(shape_));
    first_frame_ = latent;
}

void Denoiser::hold(const Tensor& latent, const Tensor& open) {
    require(latent.shape() == shape_ && open.shape() == shape_ && shape_.size() == 4,
            "[denoise] latents {} and a mask {} found, expected pictures, both {}",
            to_string(latent.shape()), to_string(open.shape()), to_string(shape_));
    const Tensor away = linear_combination(stream_, {{1, start()}, {-1, latent}});
    open_ = open;
    held_ = linear_combination(stream_, {{1, away}, {-1, multiply(stream_, away, open)}});
}

void Denoiser::say_by_region(RegionTexts texts, int until) {
    require(request_.each_prompt.empty(),
            "[denoise] regions found beside a prompt for each seed, expected one for all");
    regions_ = std::move(texts);
    regions_until_ = until;
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

// For each branch that is there from the start, with the first frame as it is held.
Tensor Denoiser::model_input(const Tensor& z, int64_t copies) const {
    if (copies == 1 && !first_frame_) return convert(stream_, z, model_.dtype);
    const int64_t n = z.dim(0);
    Shape shape = z.shape();
    shape[0] = copies * n;
    const Tensor input = empty(stream_.device(), shape, z.dtype());
    for (int64_t i = 0; i < copies; ++i) stream_.copy(read(z), write(input.slice(i * n, n)));
    put_first_frame(input);
    return convert(stream_, input, model_.dtype);
}

Tensor Denoiser::velocity(const Tensor& z, const Evaluation& at) const {
    if (held_ && at.step < guidance_.zero_steps()) return held_;
    const Branches& b = branches(at.step, at.steps);
    const DitGrid grid = model_.dit.grid(z.shape());
    const int64_t n = z.dim(0);
    DitHooks hooks = hooks_ ? hooks_(at) : DitHooks{};
    if (!hooks.attention) {
        DitHooks own = hooks_by(model_.dit.patterns(grid));
        hooks.attention = own.attention;
        hooks.perturbed = own.perturbed;
    }
    if (!entropy_factors_.empty()) hooks = with_entropy_scale(hooks, entropy_factors_);
    if (at.step < regions_until_)
        hooks.cross = inject_regions(regions_, n, b.layout.unprompted ? n : 0);
    // Features that are kept are of one batch from the first layer to the last.
    const bool shared = request_.share_branches && !hooks.part;
    const int64_t copies = b.layout.unprompted ? 2 : 1;
    const Tensor v =
        convert(stream_,
                model_.dit.forward(stream_, model_input(z, copies), at.t, b.context,
                                   with_branches(std::move(hooks), b.layout, grid, shared)),
                DType::f32);
    Velocities of{.prompted = v.slice(0, n)};
    if (b.layout.unprompted) of.unprompted = v.slice(n, n);
    for (size_t i = 0; i < b.terms.size(); ++i)
        of.perturbed[b.terms[i]] = v.slice((copies + static_cast<int64_t>(i)) * n, n);
    const Tensor guided = combination_.velocity(stream_, z, at.t, at.step, at.steps, of);
    return held_ ? add(stream_, multiply(stream_, guided, open_), held_) : guided;
}

void Denoiser::check_cancel() const {
    if (request_.cancel && *request_.cancel) throw Cancelled();
}

Tensor Denoiser::run(const std::function<void(int step, const Tensor& z)>& on_preview,
                     const WalkPart& part) const {
    const int steps = request_.steps, end = part.last < 0 ? steps : part.last;
    const bool clip = shape_.size() == 5;
    FlowSampler sampler(request_.sampler,
                        flow_times(steps, clip ? model_.dit.config().clip_shift : 1));
    Tensor z = part.z ? part.z : start();
    const int zero = guidance_.zero_steps();
    combination_ = Combination(guidance_);  // without the memory of another run
    // A GPU is one step behind what is recorded, a CPU has no time to spare for that.
    const bool behind = stream_.device().info().type != vk::DeviceType::cpu;
    auto tell = [&, told = part.first](int done) mutable {
        if (request_.on_step && done > told) request_.on_step(done, steps);
        told = done;
    };
    for (int i = part.first; i < end; ++i) {
        check_cancel();
        // A velocity of 0 leaves z where it is, without the model.
        if (i >= zero || held_)
            z = sampler.step(stream_, z, i, [&](const Tensor& at, float t) {
                return velocity(at, {.step = i, .steps = steps, .t = t});
            });
        if (behind)
            stream_.wait_for_earlier();
        else
            stream_.wait();
        tell(behind ? i : i + 1);
        const bool due = request_.preview_every > 0 && (i + 1) % request_.preview_every == 0;
        if (on_preview && due && i >= zero && i + 1 < steps) {
            put_first_frame(sampler.denoised());
            on_preview(i + 1, sampler.denoised());
        }
    }
    stream_.wait();
    tell(end);
    check_cancel();
    put_first_frame(z);
    if (part.estimate) *part.estimate = sampler.denoised();
    return z;
}

std::vector<Image> Denoiser::decode(const Tensor& latents) const {
    return checked(latents,
                   model_.autoencoder.decode(stream_, convert(stream_, latents, model_.dtype)));
}

std::vector<Image> Denoiser::decode_singly(const Tensor& latents) const {
    std::vector<Tensor> pictures;
    for (int64_t i = 0; i < latents.dim(0); ++i) {
        pictures.push_back(model_.autoencoder.decode(
            stream_, convert(stream_, latents.slice(i, 1), model_.dtype)));
        stream_.submit();  // work begins while the next one is recorded
    }
    return checked(latents, stacked(stream_, pictures));
}

std::vector<Image> Denoiser::checked(const Tensor& latents, const Tensor& pictures) const {
    // Latents are checked as well: a NaN can vanish in the decoder, whose ReLU may turn it into 0.
    const Statistics latent = statistics(stream_, latents), picture = statistics(stream_, pictures);
    const int64_t nan = latent.nan + picture.nan, infinite = latent.inf + picture.inf;
    require(nan == 0 && infinite == 0,
            "[generate] the result has {} NaN and {} infinite values; nothing was written. Try a "
            "lower --cfg or --precision fp32, and please report the settings",
            nan, infinite);
    return to_images(stream_, pictures);
}

Tensor stacked(vk::Stream& stream, const std::vector<Tensor>& samples) {
    Shape shape = samples[0].shape();
    shape[0] = std::ssize(samples);
    const Tensor all = empty(stream.device(), shape, samples[0].dtype());
    for (int64_t i = 0; i < shape[0]; ++i)
        stream.copy(read(samples[static_cast<size_t>(i)]), write(all.slice(i, 1)));
    return all;
}

int64_t rows_of_sample(const Model& model, const DenoiseRequest& request, int width, int height) {
    const int64_t side = Autoencoder::kDown * model.dit.config().patch;
    const int64_t branches = std::max<int64_t>(2, guidance_of(request).most_branches());
    return branches * (width / side) * (height / side);
}

int64_t samples_that_bind(const vk::DeviceInfo& device, const Model& model,
                          const DenoiseRequest& request, int width, int height) {
    const auto& dit = model.dit.config();
    const int64_t widest = std::max(dit.hidden, 3 * dit.width);
    const auto each =
        static_cast<uint64_t>(rows_of_sample(model, request, width, height) * widest) *
        bytes_of(model.dtype);
    return std::max<int64_t>(1, static_cast<int64_t>(device.limits.storage_buffer_range / each));
}

}  // namespace fovea
