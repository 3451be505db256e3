#include "pipelines/text_to_video.h"

#include <algorithm>
#include <chrono>

#include "backend/log.h"
#include "backend/ops/elementwise.h"
#include "vision/transfer.h"

namespace fovea {
namespace {

using Clock = std::chrono::steady_clock;
using Request = TextToVideo::Request;

// At once: 4 frames of 128×128, whose maps take 90 MB, and about the time of a step.
constexpr int64_t kDecodePixels = 1 << 16;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// Frames decoded at once, in batches of one size.
int64_t decode_batch(int width, int height, int frames) {
    const int64_t most = std::clamp<int64_t>(kDecodePixels / (int64_t{width} * height), 1, frames);
    const int64_t batches = (frames + most - 1) / most;
    return (frames + batches - 1) / batches;
}

void validate(const Model& model, const Request& request) {
    const ClipLimits limits = clip_limits(model.dit.config());
    validate_sides(request.width, request.height, "video");
    validate(static_cast<const DenoiseRequest&>(request), "video");
    require(request.frames >= limits.least_frames && request.frames <= limits.most_frames,
            "[video] {} frames found, expected {} to {}", request.frames, limits.least_frames,
            limits.most_frames);
}

ClipShape shape_of(const Request& request) {
    return {.frames = request.frames, .width = request.width, .height = request.height};
}

// Of a picture, as the autoencoder sees it.
Tensor encode(vk::Stream& stream, const Model& model, const Image& picture,
              const Request& request) {
    const bool same = picture.width == request.width && picture.height == request.height;
    const std::vector<Image> pictures{same ? picture
                                           : resize(picture, request.width, request.height)};
    return convert(stream,
                   model.autoencoder.encode(stream, to_device(stream, pictures, model.dtype)),
                   DType::f32);
}

std::shared_ptr<ClipMethod> method_of(const Model& model, const Request& request) {
    const DitGrid grid = shape_of(request).grid(model);
    MethodRequest method = request.method;
    if (method.pattern == "auto") method.pattern = auto_pattern(grid);
    auto made = std::make_shared<ClipMethod>(make_method(method, model.dit.config(), grid));
    validate_methods(request, made->attention->remembers(), made->cache != nullptr);
    for (const GuidanceTerm& term : guidance_of(request).terms)
        require(made->attention->perturbs() || !is_partial(term, model.dit.config()),
                "[method] {} found beside {} by strengths of single heads, expected a pattern or "
                "pag of whole blocks",
                method.pattern, name_of(term.kind));
    return made;
}

Denoiser denoiser(vk::Stream& stream, const Model& model, const Request& request,
                  const std::shared_ptr<ClipMethod>& method) {
    const uint64_t seeds[] = {request.seed};
    Denoiser result(stream, model, request, shape_of(request).latents(model), seeds,
                    [method](const Evaluation& at) { return method->hooks(at.step, at.steps); });
    if (request.first_frame)
        result.hold_first_frame(encode(stream, model, *request.first_frame, request));
    return result;
}

// The last batch begins where it is as long as the others: another length would need memory of its
// own.
std::vector<Image> decode(const Denoiser& denoiser, const Tensor& latents, int64_t batch,
                          const std::function<void()>& on_batch) {
    std::vector<Image> frames;
    const int64_t count = latents.dim(0);
    for (int64_t i = 0; i < count; i += batch) {
        const int64_t begin = std::min(i, count - batch);
        auto some = denoiser.decode(latents.slice(begin, batch));
        for (int64_t j = i - begin; j < batch; ++j)
            frames.push_back(std::move(some[static_cast<size_t>(j)]));
        on_batch();
    }
    return frames;
}

// z (1, frames, height, width, channels)
std::vector<Image> preview(const Denoiser& denoiser, const Tensor& z, int most) {
    const int64_t frames = z.dim(1), shown = std::clamp<int64_t>(most, 1, frames);
    const Tensor latents = z.reshape({frames, z.dim(2), z.dim(3), z.dim(4)});
    std::vector<Image> images;
    for (int64_t i = 0; i < shown; ++i)
        images.push_back(std::move(denoiser.decode(latents.slice(i * frames / shown, 1))[0]));
    return images;
}

}  // namespace

const char* auto_pattern(const DitGrid& grid) {
    return grid[0] * grid[1] * grid[2] < kAutoTokens ? "dense" : kAutoPattern;
}

TextToVideo::Memory TextToVideo::memory(vk::Stream& stream, const Model& model,
                                        const Request& request) {
    const int64_t samples = guidance_of(request).most_branches();
    Memory memory = clip_memory(stream, model, shape_of(request), samples,
                                decode_batch(request.width, request.height, request.frames));
    const Shape latent = shape_of(request).latents(model);
    const int64_t values = latent[0] * latent[1] * latent[2] * latent[3];
    // Noise, input, velocity of both samples, and what the sampler keeps.
    const auto element = static_cast<int64_t>(bytes_of(model.dtype));
    memory.activations += static_cast<uint64_t>(values * (4 * samples * element + 8 * 4));
    return memory;
}

void TextToVideo::require_fits(vk::Stream& stream, const Model& model, const Request& request,
                               uint64_t available) {
    validate(model, request);
    fovea::require_fits(
        stream.device().info(), "video", shape_of(request),
        clip_limits(model.dit.config()).least_frames,
        [&](const ClipShape& shape) {
            Request other = request;
            other.frames = shape.frames;
            other.width = shape.width;
            other.height = shape.height;
            return memory(stream, model, other);
        },
        available);
}

TextToVideo::Result TextToVideo::run(vk::Stream& stream, const Model& model,
                                     const Request& request) {
    const auto begin = Clock::now();
    require_fits(stream, model, request);
    const auto method = method_of(model, request);
    const int64_t batch = decode_batch(request.width, request.height, request.frames);
    const int total = request.steps + static_cast<int>((request.frames + batch - 1) / batch);
    const auto report = [&](int done) {
        if (request.on_step) request.on_step(done, total);
    };
    Request steps = request;
    steps.on_step = [&](int done, int) { report(done); };
    report(0);
    const Denoiser run = denoiser(stream, model, steps, method);
    std::function<void(int, const Tensor&)> on_preview;
    if (request.on_preview)
        on_preview = [&](int step, const Tensor& z) {
            request.on_preview(step, preview(run, z, request.preview_frames));
        };
    const Tensor latents = run.run(on_preview).reshape(shape_of(request).latents(model));
    int done = request.steps;
    const auto decoded = [&] {
        if (request.cancel && *request.cancel) throw Cancelled();
        report(++done);
    };
    Result result{.frames = decode(run, latents, batch, decoded),
                  .density = method->attention->density(stream),
                  .computed = method->cache ? method->cache->computed() : 1};
    refuse_blank(result.frames, "video");
    log::info("{} frames, {} steps, {:.2f} s", request.frames, request.steps, seconds_since(begin));
    return result;
}

TextToVideo::Probe TextToVideo::probe(vk::Stream& stream, const Model& model,
                                      const Request& request) {
    require_fits(stream, model, request);
    const Denoiser run = denoiser(stream, model, request, method_of(model, request));
    const Tensor z = run.start();
    Probe probe{};
    // Twice: the first time compiles pipelines, and is a dense step of methods that begin with one.
    const auto kinds = run.step_kinds();
    const int first = request.method.dense_steps;
    for (const auto& kind : kinds) {
        double seconds = 0;
        for (int i = 0; i < 2; ++i) {
            stream.wait();
            const auto begin = Clock::now();
            const bool one = kinds.size() == 1;
            run.velocity(z, {.step = one ? first + i : kind.step,
                             .steps = one ? first + 9 : request.steps,
                             .t = 0.5f});
            stream.wait();
            seconds = seconds_since(begin);
        }
        probe.step_seconds += seconds * kind.count / request.steps * evaluations(request.sampler);
    }
    probe.passes = run.mean_passes();
    const Tensor frame = z.reshape(shape_of(request).latents(model)).slice(0, 1);
    for (int i = 0; i < 2; ++i) {
        const auto begin = Clock::now();
        run.decode(frame);
        probe.decode_seconds = seconds_since(begin) * request.frames;
    }
    return probe;
}

}  // namespace fovea
