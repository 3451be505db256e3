#include "pipelines/edit.h"

#include <fmt/format.h>

#include <algorithm>

#include "backend/ops/elementwise.h"
#include "backend/patterns/frames.h"
#include "pipelines/clip.h"
#include "pipelines/edit_parts.h"
#include "vision/taps/inject.h"
#include "vision/transfer.h"

namespace fovea {
namespace editing {

Dit::Context context_of(vk::Stream& stream, const Model& model,
                        std::initializer_list<const Tokenizer::Result*> prompts) {
    std::vector<int32_t> ids;
    for (const auto* prompt : prompts)
        ids.insert(ids.end(), prompt->ids.begin(), prompt->ids.end());
    return model.dit.context(stream, model.text.forward(stream, ids));
}

Tensor forward(const Walk& walk, const Tensor& z, float t, const Dit::Context& context,
               DitHooks hooks) {
    const auto& model = walk.model;
    if (!hooks.attention) hooks.attention = walk.attention;
    return convert(
        walk.stream,
        model.dit.forward(walk.stream, convert(walk.stream, z, model.dtype), t, context, hooks),
        DType::f32);
}

}  // namespace editing

namespace {

using namespace editing;
using Request = Edit::Request;

// Samples of the batch; the unguided walk has the first two alone.
constexpr int64_t kSource = 0, kTarget = 1, kSourceFree = 2, kTargetFree = 3;

// Euler's times with the last step cut in three. The step back into t contracts by about (t −
// t_next) / t in what the model takes for noise: not at all from 0, so the last step is short.
std::vector<float> edit_times(int steps, float shift) {
    std::vector<float> times = flow_times(steps, shift);
    const float last = times[times.size() - 2];
    times.back() = last / 3;
    times.push_back(last / 9);
    times.push_back(0);
    return times;
}

ClipShape shape_of(const Request& request) {
    return {.frames = static_cast<int>(request.frames.size()),
            .width = request.width,
            .height = request.height};
}

void validate_frames(const Model& model, const Request& request) {
    const auto& frames = request.frames;
    require(!frames.empty(), "[edit] no picture given");
    if (frames.size() == 1) {
        require(request.shared_frames == "all",
                "[edit] shared frames {} found beside a picture, expected a clip",
                request.shared_frames);
        return;
    }
    const ClipLimits limits = clip_limits(model.dit.config());
    require(std::ssize(frames) <= limits.most_frames, "[edit] {} frames found, expected at most {}",
            frames.size(), limits.most_frames);
    for (const Image& frame : frames)
        require(frame.width == frames[0].width && frame.height == frames[0].height,
                "[edit] frames of {}x{} and {}x{} found, expected one size", frames[0].width,
                frames[0].height, frame.width, frame.height);
}

void validate(const Model& model, const Request& request) {
    validate_sides(request.width, request.height, "edit");
    validate_frames(model, request);
    const auto in = [](const char* name, float value, float least, float most) {
        require(value >= least && value <= most, "[edit] {} {} found, expected {} to {}", name,
                value, least, most);
    };
    require(request.steps >= 1, "[edit] {} steps found, expected at least 1", request.steps);
    in("cfg", request.cfg, 0, 1000);
    in("strength", request.strength, 0, 1);
    in("keep-cross", request.keep_cross, 0, 1);
    in("keep-self", request.keep_self, 0, 1);
    in("mask", request.mask, 0, 1);
    for (const auto& [word, factor] : request.weights)
        require(factor >= 0, "[edit] weight {} of \"{}\" found, expected 0 or more", factor, word);
}

DitHooks::Attention attention_of(const Model& model, const Request& request, const DitGrid& grid) {
    auto patterns = model.dit.patterns(grid);
    if (request.shared_frames != "all") {
        const auto axis = [&](size_t i) { return static_cast<uint32_t>(grid[i]); };
        patterns.assign(patterns.size(), frames({.shape = {axis(0), axis(1), axis(2)}},
                                                parse_frames(request.shared_frames, ',')));
    }
    return attention_by(std::move(patterns));
}

Walk start(vk::Stream& stream, const Model& model, const Request& request) {
    Edit::require_fits(stream, model, request);
    const auto length = static_cast<int>(model.text.config().length);
    const bool clip = request.frames.size() > 1;
    Walk walk{.stream = stream,
              .model = model,
              .request = request,
              .shape = shape_of(request).latents(model),
              .grid = shape_of(request).grid(model),
              .attention = {},
              .source = model.tokenizer.encode(request.source, length),
              .target = model.tokenizer.encode(request.target, length),
              .change = {},
              .of_source = {},
              .of_all = {},
              .times = edit_times(request.steps, clip ? model.dit.config().clip_shift : 1)};
    if (clip) walk.shape.insert(walk.shape.begin(), 1);
    walk.attention = attention_of(model, request, walk.grid);
    for (const auto& [text, prompt] :
         {std::pair(&request.source, &walk.source), std::pair(&request.target, &walk.target)})
        require(!prompt->words.empty(), "[edit] the prompt \"{}\" has no word that the model knows",
                *text);
    walk.change = compare_prompts(walk.source.words, walk.target.words);
    const auto nothing = model.tokenizer.encode("", length);
    walk.of_source = context_of(stream, model, {&walk.source});
    walk.of_all = walk.guided()
                      ? context_of(stream, model, {&walk.source, &walk.target, &nothing, &nothing})
                      : context_of(stream, model, {&walk.source, &walk.target});
    return walk;
}

// Frames one after the other: the autoencoder's maps are the largest tensors of all.
Tensor encode(const Walk& walk, const std::vector<Image>& pictures) {
    std::vector<Tensor> latents;
    for (const Image& picture : pictures)
        latents.push_back(
            convert(walk.stream,
                    walk.model.autoencoder.encode(
                        walk.stream, to_device(walk.stream, {picture}, walk.model.dtype)),
                    DType::f32));
    return stacked(walk.stream, latents).reshape(walk.shape);
}

std::vector<Image> decode(const Walk& walk, const Tensor& z) {
    Shape frames = walk.shape;
    if (frames.size() == 5) frames.erase(frames.begin());
    const Tensor latents = convert(walk.stream, z, walk.model.dtype).reshape(frames);
    std::vector<Image> pictures;
    for (int64_t i = 0; i < walk.frames(); ++i) {
        walk.check_cancel();
        pictures.push_back(to_images(
            walk.stream, walk.model.autoencoder.decode(walk.stream, latents.slice(i, 1)))[0]);
    }
    return pictures;
}

std::vector<Image> resized(const Request& request) {
    std::vector<Image> frames;
    for (const Image& frame : request.frames)
        frames.push_back(resize(frame, request.width, request.height));
    return frames;
}

Inversion invert(const Walk& walk, const Tensor& latent, int total) {
    Inversion::Options options{.iterations = walk.request.iterations};
    options.on_step = [&](int step) {
        walk.check_cancel();
        if (walk.request.on_step) walk.request.on_step(step, total);
    };
    return fovea::invert(
        walk.stream, latent, walk.times,
        [&](const Tensor& z, float t) { return forward(walk, z, t, walk.of_source); }, options);
}

CrossInjection cross_injection(const Walk& walk, bool keep) {
    const size_t length = walk.source.ids.size();
    std::vector<float> mapping(length * length), own(length, 1);
    if (keep)
        mapping = token_mapping(walk.change, walk.source.words.size(), walk.target.words.size(),
                                length, walk.request.exchange);
    for (size_t j = 0; j < length; ++j)
        for (size_t i = 0; i < length; ++i)
            if (mapping[i * length + j] != 0) own[j] = 0;
    for (const auto& [word, factor] : walk.request.weights)
        for (const size_t j : find_phrase(walk.model.tokenizer, walk.target.words, word)) {
            own[j] *= factor;
            for (size_t i = 0; i < length; ++i) mapping[i * length + j] *= factor;
        }
    const auto n = static_cast<int64_t>(length);
    return {.source = kSource,
            .target = kTarget,
            .mapping = upload(walk.stream, mapping, {n, n}, DType::f32),
            .own = upload(walk.stream, own, {n}, DType::f32)};
}

// Of the four samples' velocities: target's less source's, both guided.
Tensor difference(const Walk& walk, const Tensor& v) {
    const auto row = [&](int64_t i) { return v.slice(i, 1); };
    if (!walk.guided())
        return linear_combination(walk.stream, {{1, row(kTarget)}, {-1, row(kSource)}});
    const float cfg = walk.request.cfg;
    const auto guided = [&](int64_t with, int64_t without) {
        return linear_combination(walk.stream, {{cfg, row(with)}, {1 - cfg, row(without)}});
    };
    return linear_combination(
        walk.stream, {{1, guided(kTarget, kTargetFree)}, {-1, guided(kSource, kSourceFree)}});
}

// A mask of tokens on every latent value.
Tensor latent_mask(const Walk& walk, const std::vector<float>& mask) {
    const int64_t patch = walk.model.dit.config().patch, rows = walk.grid[1] * patch,
                  columns = walk.grid[2] * patch;
    std::vector<float> values;
    for (int64_t y = 0; y < walk.frames() * rows; ++y)
        for (int64_t x = 0; x < columns; ++x)
            values.insert(values.end(), static_cast<size_t>(walk.shape.back()),
                          mask[static_cast<size_t>(y / patch * walk.grid[2] + x / patch)]);
    return upload(walk.stream, values, walk.shape, DType::f32);
}

// The target's latent at the end, from where it leaves the source's on.
Tensor edited(const Walk& walk, const std::vector<Tensor>& latents, size_t first,
              const std::vector<float>& mask, const std::function<void(size_t step)>& on_step) {
    auto& stream = walk.stream;
    const Request& request = walk.request;
    const size_t steps = walk.times.size() - 1 - first;
    const Tensor may_change = latent_mask(walk, mask);
    const Tensor of_tokens = upload(stream, mask, {std::ssize(mask)}, DType::f32);
    const auto self = inject_self(
        {.pairs = walk.guided()
                      ? std::vector<std::pair<int64_t, int64_t>>{{kSource, kTarget},
                                                                 {kSourceFree, kTargetFree}}
                      : std::vector<std::pair<int64_t, int64_t>>{{kSource, kTarget}},
         .mask = of_tokens},
        walk.attention);
    const auto kept = inject_cross(cross_injection(walk, true)),
               own = inject_cross(cross_injection(walk, false));
    Tensor d = linear_combination(stream, {{0, latents[first]}});
    for (size_t n = 0; n < steps; ++n) {
        walk.check_cancel();
        const size_t i = first + n;
        const auto part = static_cast<float>(n) / static_cast<float>(steps);
        const DitHooks hooks{.attention = part < request.keep_self ? self : DitHooks::Attention{},
                             .cross = part < request.keep_cross ? kept : own,
                             .part = {}};
        const Tensor &z = latents[i], target = add(stream, z, d);
        const Tensor batch =
            walk.guided() ? stacked(stream, {z, target, z, target}) : stacked(stream, {z, target});
        const Tensor v = difference(walk, forward(walk, batch, walk.times[i], walk.of_all, hooks));
        d = multiply(stream,
                     linear_combination(stream, {{1, d}, {walk.times[i + 1] - walk.times[i], v}}),
                     may_change);
        stream.wait();
        on_step(n + 1);
    }
    return add(stream, latents.back(), d);
}

ClipMemory memory_of(vk::Stream& stream, const Model& model, const Request& request,
                     const ClipShape& shape) {
    const auto& dit = model.dit.config();
    const bool guided = request.cfg != 1;
    const int64_t samples = guided ? 4 : 2;
    ClipMemory memory = clip_memory(stream, model, shape, samples, 1);
    const DitGrid grid = shape.grid(model);
    const int64_t tokens = grid[0] * grid[1] * grid[2],
                  values = tokens * dit.latent_channels * dit.patch * dit.patch,
                  element = static_cast<int64_t>(bytes_of(model.dtype));
    // One sample in the inversion, two where words are located, then all.
    memory.activations =
        memory.activations * static_cast<uint64_t>(guided ? 7 : 3) / static_cast<uint64_t>(samples);
    // What is kept to spread maps: queries and keys of two samples.
    const int64_t spread = 4 * dit.layers * tokens * dit.width * element;
    // Maps of words of source, target, both mixed and their mean; outputs of single samples.
    const int64_t maps =
        6 * tokens * dit.heads * model.text.config().length * 4 + 6 * tokens * dit.width * element;
    // The inversion's latents, those that it compares, and the samples' latents and velocities.
    const int64_t latents = values * 4 * (request.steps + 16 + 4 * samples);
    memory.activations += static_cast<uint64_t>(spread + maps + latents);
    memory.decode *= 2;  // and encode
    return memory;
}

}  // namespace

ClipMemory Edit::memory(vk::Stream& stream, const Model& model, const Request& request) {
    return memory_of(stream, model, request, shape_of(request));
}

void Edit::require_fits(vk::Stream& stream, const Model& model, const Request& request,
                        uint64_t available) {
    validate(model, request);
    fovea::require_fits(
        stream.device().info(), "edit", shape_of(request), 1,
        [&](const ClipShape& shape) { return memory_of(stream, model, request, shape); },
        available);
}

Edit::Result Edit::run(vk::Stream& stream, const Model& model, const Request& request) {
    const Walk walk = start(stream, model, request);
    for (const auto& [word, factor] : request.weights)
        find_phrase(model.tokenizer, walk.target.words, word);  // before the work
    named_words(walk);
    const size_t steps = walk.times.size() - 1;
    const size_t first =
        static_cast<size_t>(std::find_if(walk.times.begin(), walk.times.end(),
                                         [&](float t) { return t <= request.strength; }) -
                            walk.times.begin());
    const auto total = static_cast<int>(2 * steps - first);
    if (request.on_step) request.on_step(0, total);

    Result result;
    result.rows = walk.grid[1];
    result.columns = walk.grid[2];
    result.resized = resized(request);
    result.source_latent = encode(walk, result.resized);
    const Inversion inversion = invert(walk, result.source_latent, total);
    result.residual = inversion.residual;
    const Masks masks = find_masks(walk, inversion.latents);
    result.mask = masks.of_latents(walk.grid);
    result.latent = edited(walk, inversion.latents, first, result.mask, [&](size_t step) {
        if (request.on_step) request.on_step(static_cast<int>(steps + step), total);
    });
    result.frames = decode(walk, result.latent);
    for (size_t i = 0; i < result.frames.size(); ++i)
        result.frames[i] =
            composite(walk, static_cast<int64_t>(i), result.resized[i], result.frames[i], masks);
    return result;
}

Edit::RoundTrip Edit::round_trip(vk::Stream& stream, const Model& model, const Request& request) {
    const Walk walk = start(stream, model, request);
    const auto total = static_cast<int>(2 * (walk.times.size() - 1));
    const Tensor latent = encode(walk, resized(request));
    Tensor z = invert(walk, latent, total).latents[0];
    FlowSampler sampler(Sampler::euler, walk.times);
    for (int i = 0; i + 1 < static_cast<int>(walk.times.size()); ++i) {
        walk.check_cancel();
        z = sampler.step(stream, z, i, [&](const Tensor& at, float t) {
            return forward(walk, at, t, walk.of_source);
        });
    }
    return {decode(walk, z), decode(walk, latent)};
}

}  // namespace fovea
