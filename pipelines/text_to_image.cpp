#include "pipelines/text_to_image.h"

#include <algorithm>
#include <chrono>

#include "backend/error.h"
#include "backend/log.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/reduce.h"
#include "backend/patterns/registry.h"
#include "vision/noise.h"
#include "vision/transfer.h"

namespace fovea {
namespace {

using Clock = std::chrono::steady_clock;
using Request = TextToImage::Request;

constexpr float kBlankDeviation = 0.004f;  // one of 255 steps: nothing to see

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

void validate(const Request& request) {
    const auto side = [](const char* name, int value) {
        require(value >= TextToImage::kMinSide && value <= TextToImage::kMaxSide &&
                    value % TextToImage::kMultiple == 0,
                "[generate] {} {} found, expected a multiple of {} from {} to {}", name, value,
                TextToImage::kMultiple, TextToImage::kMinSide, TextToImage::kMaxSide);
    };
    side("width", request.width);
    side("height", request.height);
    require(request.steps >= 1, "[generate] {} steps found, expected at least 1", request.steps);
    require(request.cfg >= 0, "[generate] cfg {} found, expected 0 or more", request.cfg);
    require(!request.seeds.empty(), "[generate] no seed given");
}

Tensor concatenate(vk::Stream& stream, const Tensor& a, const Tensor& b) {
    Shape shape = a.shape();
    shape[0] += b.dim(0);
    const Tensor both = empty(stream.device(), shape, a.dtype());
    stream.copy(read(a), write(both.slice(0, a.dim(0))));
    stream.copy(read(b), write(both.slice(a.dim(0), b.dim(0))));
    return both;
}

// Latents are checked as well: a NaN can vanish in the decoder, whose ReLU may turn it into 0.
void refuse_broken(const Statistics& latent, const Statistics& picture) {
    const uint64_t nan = latent.nan + picture.nan, infinite = latent.inf + picture.inf;
    require(
        nan == 0 && infinite == 0,
        "[generate] the result has {} NaN and {} infinite values; nothing was written. Try a lower "
        "--cfg or --precision fp32, and please report the settings",
        nan, infinite);
    require(picture.stddev >= kBlankDeviation,
            "[generate] the picture is blank (standard deviation {:.5f}); nothing was written. Try "
            "another "
            "seed, more steps or a lower --cfg",
            picture.stddev);
}

/// One request on its way: what stays the same over the steps.
class Run {
  public:
    Run(vk::Stream& stream, const Model& model, const Request& request)
        : stream_(stream), model_(model), request_(request), guided_(request.cfg != 1) {
        const int64_t rows = request.height / Autoencoder::kDown,
                      columns = request.width / Autoencoder::kDown;
        const int64_t patch = model.dit.config().patch;
        auto patterns = model.dit.patterns({1, rows / patch, columns / patch});
        if (!request.pattern.empty()) {
            const Grid grid{.shape = {static_cast<uint32_t>(rows / patch),
                                      static_cast<uint32_t>(columns / patch)}};
            patterns.assign(patterns.size(), parse_pattern(request.pattern, grid));
        }
        hooks_.attention = attention_by(std::move(patterns));
        shape_ = {static_cast<int64_t>(request.seeds.size()), rows, columns,
                  model.dit.config().latent_channels};
        context_ = encode_prompt();
    }

    /// Noise depends on the seed alone, not on the batch.
    Tensor start() const {
        const auto each = static_cast<size_t>(shape_[1] * shape_[2] * shape_[3]);
        std::vector<float> values;
        for (const uint64_t seed : request_.seeds) {
            const auto noise = normal_noise(seed, 0, each);
            values.insert(values.end(), noise.begin(), noise.end());
        }
        return upload(stream_, values, shape_, DType::f32);
    }

    /// Velocity with classifier-free guidance: v = v_u + cfg (v_c − v_u). z and v are fp32 whatever
    /// the model's type: the sampler's sums over many steps are where fp16 would be seen first.
    Tensor velocity(const Tensor& z, float t) const {
        const Tensor input =
            convert(stream_, guided_ ? concatenate(stream_, z, z) : z, model_.dtype);
        const Tensor v =
            convert(stream_, model_.dit.forward(stream_, input, t, context_, hooks_), DType::f32);
        if (!guided_) return v;
        const int64_t n = z.dim(0);
        const Term terms[] = {{request_.cfg, v.slice(0, n)}, {1 - request_.cfg, v.slice(n, n)}};
        return linear_combination(stream_, terms);
    }

    /// One picture after the other: the decoder's maps are the largest tensors of all. Throws Error
    /// for a broken one.
    std::vector<Image> decode(const Tensor& z, bool final = true) const {
        std::vector<Image> images;
        for (int64_t i = 0; i < z.dim(0); ++i) {
            const Tensor latent = z.slice(i, 1);
            const Tensor picture =
                model_.autoencoder.decode(stream_, convert(stream_, latent, model_.dtype));
            if (final) refuse_broken(statistics(stream_, latent), statistics(stream_, picture));
            images.push_back(std::move(to_images(stream_, picture)[0]));
        }
        return images;
    }

  private:
    Dit::Context encode_prompt() const {
        const auto length = static_cast<int>(model_.text.config().length);
        const auto prompt = model_.tokenizer.encode(request_.prompt, length).ids;
        const auto nothing = model_.tokenizer.encode("", length).ids;
        std::vector<int32_t> ids;
        for (size_t i = 0; i < request_.seeds.size(); ++i)
            ids.insert(ids.end(), prompt.begin(), prompt.end());
        if (guided_)
            for (size_t i = 0; i < request_.seeds.size(); ++i)
                ids.insert(ids.end(), nothing.begin(), nothing.end());
        return model_.dit.context(stream_, model_.text.forward(stream_, ids));
    }

    vk::Stream& stream_;
    const Model& model_;
    const Request& request_;
    bool guided_;
    DitHooks hooks_;
    Shape shape_;
    Dit::Context context_;
};

void check_cancel(const Request& request) {
    if (request.cancel && *request.cancel) throw Cancelled();
}

// One batch from noise to pictures.
std::vector<Image> run_batch(vk::Stream& stream, const Model& model, const Request& request) {
    const Run run(stream, model, request);
    FlowSampler sampler(request.sampler, flow_times(request.steps));
    Tensor z = run.start();
    for (int i = 0; i < request.steps; ++i) {
        check_cancel(request);
        z = sampler.step(stream, z, i,
                         [&](const Tensor& at, float t) { return run.velocity(at, t); });
        stream.wait();
        if (request.on_step) request.on_step(i + 1, request.steps);
        const bool last = i + 1 == request.steps;
        if (request.on_preview && request.preview_every > 0 && !last &&
            (i + 1) % request.preview_every == 0)
            request.on_preview(i + 1, run.decode(sampler.denoised(), false));
    }
    check_cancel(request);
    return run.decode(z);
}

}  // namespace

int64_t TextToImage::batch_size(const vk::DeviceInfo& device, const Model& model,
                                const Request& request) {
    const auto& dit = model.dit.config();
    const int64_t side = Autoencoder::kDown * dit.patch;
    const int64_t tokens = (request.width / side) * (request.height / side);
    const int64_t widest = std::max(dit.hidden, 3 * dit.width);
    // Twice: guidance doubles the batch.
    const uint64_t each = static_cast<uint64_t>(2 * tokens * widest) * bytes_of(model.dtype);
    const auto fits = static_cast<int64_t>(device.limits.storage_buffer_range / each);
    return std::clamp<int64_t>(fits, 1, std::min<int64_t>(kMaxBatch, std::ssize(request.seeds)));
}

std::vector<Image> TextToImage::run(vk::Stream& stream, const Model& model,
                                    const Request& request) {
    const auto begin = Clock::now();
    validate(request);
    const auto batch = static_cast<size_t>(batch_size(stream.device().info(), model, request));
    const size_t count = request.seeds.size(), batches = (count + batch - 1) / batch;
    const int total = request.steps * static_cast<int>(batches);
    if (request.on_step) request.on_step(0, total);
    std::vector<Image> images;
    for (size_t i = 0; i < batches; ++i) {
        Request part = request;
        const auto first = request.seeds.begin() + static_cast<std::ptrdiff_t>(i * batch);
        part.seeds.assign(first,
                          first + static_cast<std::ptrdiff_t>(std::min(batch, count - i * batch)));
        const int before = request.steps * static_cast<int>(i);
        if (request.on_step)
            part.on_step = [&](int done, int) { request.on_step(before + done, total); };
        for (auto& image : run_batch(stream, model, part)) images.push_back(std::move(image));
    }
    log::info("{} picture(s), {} steps, {:.2f} s", count, request.steps, seconds_since(begin));
    return images;
}

TextToImage::Probe TextToImage::probe(vk::Stream& stream, const Model& model,
                                      const Request& request) {
    validate(request);
    const auto batch = batch_size(stream.device().info(), model, request);
    Request part = request;
    part.seeds.resize(static_cast<size_t>(batch));
    const Run run(stream, model, part);
    const Tensor z = run.start();
    const auto count = static_cast<double>(request.seeds.size());
    Probe probe{};
    // Twice each: the first time compiles pipelines.
    for (int i = 0; i < 2; ++i) {
        stream.wait();
        const auto begin = Clock::now();
        run.velocity(z, 0.5f);
        stream.wait();
        probe.step_seconds = seconds_since(begin) * evaluations(request.sampler) * count /
                             static_cast<double>(batch);
    }
    for (int i = 0; i < 2; ++i) {
        const auto begin = Clock::now();
        run.decode(z.slice(0, 1));
        probe.decode_seconds = seconds_since(begin) * count;
    }
    probe.peak_bytes = stream.device().peak_allocated();
    return probe;
}

}  // namespace fovea
