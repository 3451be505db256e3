#include "pipelines/text_to_image.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "backend/log.h"
#include "backend/patterns/registry.h"
#include "pipelines/layout.h"

namespace fovea {
namespace {

using Clock = std::chrono::steady_clock;
using Request = TextToImage::Request;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// Samples are the pictures'; behind them, where there is a mask of subjects, the references of all.
Denoiser denoiser(vk::Stream& stream, const Model& model, const Request& request,
                  const Tensor& subjects) {
    const auto& config = model.dit.config();
    const Shape latent{request.height / Autoencoder::kDown, request.width / Autoencoder::kDown,
                       config.latent_channels};
    const DitGrid grid = model.dit.grid({1, latent[0], latent[1], latent[2]});
    auto patterns = model.dit.patterns(grid);
    if (!request.pattern.empty())
        patterns.assign(
            patterns.size(),
            parse_pattern(request.pattern, {.shape = {static_cast<uint32_t>(grid[1]),
                                                      static_cast<uint32_t>(grid[2])}}));
    auto seeds = request.seeds;
    DitHooks hooks = hooks_by(std::move(patterns));
    if (subjects) {
        seeds.insert(seeds.end(), request.seeds.begin(), request.seeds.end());
        hooks = inject_reference({.count = std::ssize(request.seeds), .mask = subjects}, hooks);
    }
    return {stream, model, request, latent, seeds, [hooks](const Evaluation&) { return hooks; }};
}

// Of the model, that a picture needs.
int64_t samples_of(const Request& request) {
    return request.subjects.empty() ? 1 : 2;
}

int work_of(const Request& request) {
    if (request.boxes.empty()) return request.steps;
    return static_cast<int>(request.seeds.size()) * Layout::draft_steps(request.steps) +
           request.steps - Layout::first_step(request.steps);
}

// One batch from noise to pictures.
std::vector<Image> run_batch(vk::Stream& stream, const Model& model, const Request& asked) {
    Request request = asked;
    WalkPart part;
    RegionTexts texts;
    std::vector<Tensor> canvases;
    Tensor subjects;
    if (!asked.boxes.empty()) {
        const Layout layout(stream, model, asked, asked.boxes, asked.subjects, asked.width,
                            asked.height);
        part.first = Layout::first_step(asked.steps);
        const int each = Layout::draft_steps(asked.steps),
                  drafted = each * static_cast<int>(asked.seeds.size());
        std::vector<Tensor> starts;
        for (const uint64_t seed : asked.seeds) {
            const int before = each * static_cast<int>(starts.size());
            const auto [z, canvas] = layout.start(seed, [&](int done) {
                if (asked.on_step) asked.on_step(before + done, 0);
            });
            starts.push_back(z);
            canvases.push_back(canvas);
        }
        subjects = layout.subject_mask();
        if (subjects)  // references are where their pictures are, and stay on this way
            for (auto* list : {&starts, &canvases})
                for (size_t i = 0; i < asked.seeds.size(); ++i) list->push_back((*list)[i]);
        part.z = stacked(stream, starts);
        texts = layout.texts();
        if (asked.on_step)
            request.on_step = [&asked, drafted, first = part.first](int done, int) {
                asked.on_step(drafted + done - first, 0);
            };
    }
    Denoiser run = denoiser(stream, model, request, subjects);
    if (subjects) {
        const Tensor latents = stacked(stream, canvases);
        std::vector<float> open(static_cast<size_t>(latents.numel()), 0);
        std::fill_n(open.begin(), open.size() / 2, 1.0f);
        run.hold(latents, upload(stream, open, latents.shape(), DType::f32));
    }
    if (texts.bias) run.say_by_region(texts, request.steps);
    const auto pictures = [&](const Tensor& z) {
        return run.decode_singly(z.slice(0, std::ssize(request.seeds)));
    };
    std::function<void(int, const Tensor&)> on_preview;
    if (request.on_preview)
        on_preview = [&](int step, const Tensor& z) { request.on_preview(step, pictures(z)); };
    auto images = pictures(run.run(on_preview, part));
    if (!request.allow_blank)
        for (const Image& image : images) refuse_blank({&image, 1});
    return images;
}

}  // namespace

void TextToImage::validate(const Request& request) {
    validate_sides(request.width, request.height, "generate");
    fovea::validate(static_cast<const DenoiseRequest&>(request), "generate");
    require(!request.seeds.empty(), "[generate] no seed given");
    require(request.each_prompt.empty() || request.each_prompt.size() == request.seeds.size(),
            "[generate] {} prompts found for {} seeds, expected one each",
            request.each_prompt.size(), request.seeds.size());
    fovea::validate(request.boxes, request.width, request.height);
    require(request.boxes.empty() || request.each_prompt.empty(),
            "[generate] boxes found beside a prompt for each seed, expected one for all");
    for (const Subject& subject : request.subjects) {
        const auto of_name = [&](const auto& one) { return one.name == subject.name; };
        require(std::any_of(request.boxes.begin(), request.boxes.end(), of_name),
                "[subject] \"{0}\" has no box, expected --box \"{0}=X0,Y0,X1,Y1\" beside it",
                subject.name);
        require(std::count_if(request.subjects.begin(), request.subjects.end(), of_name) == 1,
                "[subject] several pictures of \"{}\" found, expected one", subject.name);
    }
}

int64_t TextToImage::batch_size(const vk::DeviceInfo& device, const Model& model,
                                const Request& request) {
    const int64_t most = samples_that_bind(device, model, request, request.width, request.height);
    return std::min({std::max<int64_t>(1, most / samples_of(request)), request.most_together,
                     static_cast<int64_t>(request.seeds.size())});
}

int64_t TextToImage::fitting_batch(const vk::DeviceInfo& device, const Model& model,
                                   Request request) {
    constexpr int64_t kMost = 64, kMostOnCpu = 4;
    const auto& dit = model.dit.config();
    // Of a block at once, as TextToVideo::memory counts.
    const int64_t rows =
        samples_of(request) * rows_of_sample(model, request, request.width, request.height);
    const uint64_t each =
        static_cast<uint64_t>(rows * (10 * dit.width + dit.hidden)) * bytes_of(model.dtype);
    const uint64_t free = device.memory_free > 0 ? device.memory_free : device.memory;
    request.most_together =
        std::clamp<int64_t>(static_cast<int64_t>(free / 2 / each), 1,
                            device.type == vk::DeviceType::cpu ? kMostOnCpu : kMost);
    request.seeds.resize(static_cast<size_t>(request.most_together));
    return batch_size(device, model, request);
}

std::vector<Image> TextToImage::run(vk::Stream& stream, const Model& model,
                                    const Request& request) {
    const auto begin = Clock::now();
    validate(request);
    const auto batch = static_cast<size_t>(batch_size(stream.device().info(), model, request));
    const size_t count = request.seeds.size(), batches = (count + batch - 1) / batch;
    int total = 0, before = 0;
    std::vector<Request> parts;
    for (size_t i = 0; i < batches; ++i) {
        Request part = request;
        const auto first = request.seeds.begin() + static_cast<std::ptrdiff_t>(i * batch);
        const auto many = static_cast<std::ptrdiff_t>(std::min(batch, count - i * batch));
        part.seeds.assign(first, first + many);
        if (!request.each_prompt.empty()) {
            const auto own = request.each_prompt.begin() + static_cast<std::ptrdiff_t>(i * batch);
            part.each_prompt.assign(own, own + many);
        }
        total += work_of(part);
        parts.push_back(std::move(part));
    }
    if (request.on_step) request.on_step(0, total);
    std::vector<Image> images;
    for (Request& part : parts) {
        if (request.on_step)
            part.on_step = [&](int done, int) { request.on_step(before + done, total); };
        for (auto& image : run_batch(stream, model, part)) images.push_back(std::move(image));
        before += work_of(part);
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
    if (!part.each_prompt.empty()) part.each_prompt.resize(static_cast<size_t>(batch));
    // Which boxes cannot be is known when their prompts are made.
    std::optional<Layout> layout;
    if (!part.boxes.empty())
        layout.emplace(stream, model, part, part.boxes, part.subjects, part.width, part.height);
    const Denoiser run = denoiser(stream, model, part, layout ? layout->subject_mask() : Tensor{});
    const Tensor z = run.start();
    const auto count = static_cast<double>(request.seeds.size());
    Probe probe{};
    // Twice each: the first time compiles pipelines.
    for (const auto& kind : run.step_kinds()) {
        double seconds = 0;
        for (int i = 0; i < 2; ++i) {
            stream.wait();
            const auto begin = Clock::now();
            run.velocity(z, {.step = kind.step, .steps = request.steps, .t = 0.5f});
            stream.wait();
            seconds = seconds_since(begin);
        }
        probe.step_seconds += seconds * kind.count / request.steps * evaluations(request.sampler) *
                              count / static_cast<double>(batch);
    }
    probe.passes = run.mean_passes() * static_cast<double>(samples_of(request));
    if (layout) {
        // Drafts are of each box without a subject and what is around them.
        const Guidance guidance = guidance_of(request);
        const bool two = guidance.of_text() && guidance.of_text()->scale != 1;
        const double drafts = static_cast<double>(layout->drafts() * (two ? 2 : 1)) *
                              Layout::draft_steps(request.steps);
        const double factor =
            (request.steps - Layout::first_step(request.steps) + drafts / probe.passes) /
            request.steps;
        probe.step_seconds *= factor;
        probe.passes *= factor;
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
