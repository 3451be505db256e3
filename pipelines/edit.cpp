#include "pipelines/edit.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "backend/ops/elementwise.h"
#include "vision/guided_filter.h"
#include "vision/prompt_words.h"
#include "vision/taps/inject.h"
#include "vision/taps/taps.h"
#include "vision/taps/word_mask.h"
#include "vision/transfer.h"

namespace fovea {
namespace {

using Request = Edit::Request;

// Samples of the batch; the unguided walk has the first two alone.
constexpr int64_t kSource = 0, kTarget = 1, kSourceFree = 2, kTargetFree = 3;
constexpr float kReadingBegin = 0.35f, kReadingEnd = 0.65f;  // times at which words are located
// Share of attention at its peak from which a word has a place of its own: of the default model,
// names of things that are there reach 9 to 22 % (single words of them from 5), of others 3,
// colours of the background 1 to 3, styles 1.5 to 5.6.
constexpr float kFound = 0.05f;

/// What stays the same over an edit.
struct Walk {
    vk::Stream& stream;
    const Model& model;
    const Request& request;
    Shape shape;  ///< of the latent, (1, height, width, channels)
    DitGrid grid;
    Tokenizer::Result source, target;
    PromptChange change;
    Dit::Context of_source, of_all;  ///< the source alone; samples as above
    std::vector<float> times;

    bool guided() const { return request.cfg != 1; }
    void check_cancel() const {
        if (request.cancel && *request.cancel) throw Cancelled();
    }
};

Dit::Context context_of(vk::Stream& stream, const Model& model,
                        std::initializer_list<const Tokenizer::Result*> prompts) {
    std::vector<int32_t> ids;
    for (const auto* prompt : prompts)
        ids.insert(ids.end(), prompt->ids.begin(), prompt->ids.end());
    return model.dit.context(stream, model.text.forward(stream, ids));
}

// Euler's times with the last step cut in three. The step back into t contracts by about (t −
// t_next) / t in what the model takes for noise: not at all from 0, so the last step is short.
std::vector<float> edit_times(int steps) {
    std::vector<float> times = flow_times(steps);
    const float last = times[times.size() - 2];
    times.back() = last / 3;
    times.push_back(last / 9);
    times.push_back(0);
    return times;
}

void validate(const Request& request) {
    validate_sides(request.width, request.height, "edit");
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

Walk start(vk::Stream& stream, const Model& model, const Request& request) {
    validate(request);
    const auto length = static_cast<int>(model.text.config().length);
    Walk walk{.stream = stream,
              .model = model,
              .request = request,
              .shape = {1, request.height / Autoencoder::kDown, request.width / Autoencoder::kDown,
                        model.dit.config().latent_channels},
              .grid = {},
              .source = model.tokenizer.encode(request.source, length),
              .target = model.tokenizer.encode(request.target, length),
              .change = {},
              .of_source = {},
              .of_all = {},
              .times = edit_times(request.steps)};
    for (const auto& [text, prompt] :
         {std::pair(&request.source, &walk.source), std::pair(&request.target, &walk.target)})
        require(!prompt->words.empty(), "[edit] the prompt \"{}\" has no word that the model knows",
                *text);
    walk.grid = model.dit.grid(walk.shape);
    walk.change = compare_prompts(walk.source.words, walk.target.words);
    const auto nothing = model.tokenizer.encode("", length);
    walk.of_source = context_of(stream, model, {&walk.source});
    walk.of_all = walk.guided()
                      ? context_of(stream, model, {&walk.source, &walk.target, &nothing, &nothing})
                      : context_of(stream, model, {&walk.source, &walk.target});
    return walk;
}

Tensor forward(const Walk& walk, const Tensor& z, float t, const Dit::Context& context,
               const DitHooks& hooks = {}) {
    const auto& model = walk.model;
    return convert(
        walk.stream,
        model.dit.forward(walk.stream, convert(walk.stream, z, model.dtype), t, context, hooks),
        DType::f32);
}

Tensor encode(const Walk& walk, const Image& picture) {
    return convert(walk.stream,
                   walk.model.autoencoder.encode(
                       walk.stream, to_device(walk.stream, {picture}, walk.model.dtype)),
                   DType::f32);
}

Image decode(const Walk& walk, const Tensor& z) {
    return to_images(walk.stream, walk.model.autoencoder.decode(
                                      walk.stream, convert(walk.stream, z, walk.model.dtype)))[0];
}

Inversion invert(const Walk& walk, const Tensor& latent, int total) {
    Inversion::Options options;
    options.on_step = [&](int step) {
        walk.check_cancel();
        if (walk.request.on_step) walk.request.on_step(step, total);
    };
    return fovea::invert(
        walk.stream, latent, walk.times,
        [&](const Tensor& z, float t) { return forward(walk, z, t, walk.of_source); }, options);
}

// Samples one behind the other.
Tensor stack(vk::Stream& stream, std::initializer_list<Tensor> parts) {
    Shape shape = parts.begin()->shape();
    shape[0] = std::ssize(parts);
    const Tensor all = empty(stream.device(), shape, parts.begin()->dtype());
    int64_t i = 0;
    for (const Tensor& part : parts) stream.copy(read(part), write(all.slice(i++, 1)));
    return all;
}

/// Words that change together, as places in each prompt.
struct Changed {
    std::vector<size_t> source, target;
    bool background = false;  ///< they say how it is
};

// "blue" of "a blue striped background": the next word that is no adjective is the background.
bool describes_background(const std::vector<std::string>& words,
                          const PromptChange::Stretch& stretch) {
    constexpr size_t kAdjectives = 3;
    for (size_t i = stretch.begin; i < std::min(words.size(), stretch.end + kAdjectives); ++i) {
        if (i >= stretch.end && names_nothing(words[i])) return false;
        if (words[i] == "background" || words[i] == "backdrop") return true;
    }
    return false;
}

std::vector<Changed> changed_words(const Walk& walk) {
    std::vector<Changed> result;
    for (const auto& exchange : walk.change.exchanged) {
        PromptChange alone;
        alone.exchanged = {exchange};
        Changed words{.source = alone.source_places(walk.source.words),
                      .target = alone.target_places(walk.target.words),
                      .background = describes_background(walk.source.words, exchange.source) ||
                                    describes_background(walk.target.words, exchange.target)};
        if (!words.source.empty() || !words.target.empty()) result.push_back(std::move(words));
    }
    return result;
}

// Where the request names the mask's words: in one prompt or in both.
Changed named_words(const Walk& walk) {
    Changed result;
    for (const auto& word : walk.request.mask_words) {
        const bool in_source = has_phrase(walk.model.tokenizer, walk.source.words, word);
        const auto add = [&](const std::vector<std::string>& prompt, std::vector<size_t>& to) {
            const auto places = find_phrase(walk.model.tokenizer, prompt, word);
            to.insert(to.end(), places.begin(), places.end());
        };
        if (in_source) add(walk.source.words, result.source);
        if (!in_source || has_phrase(walk.model.tokenizer, walk.target.words, word))
            add(walk.target.words, result.target);
    }
    return result;
}

// (tokens) mean of some words' columns of a map (1, tokens, length).
std::vector<float> heat_of(std::span<const float> map, size_t length,
                           const std::vector<size_t>& places) {
    std::vector<float> heat(map.size() / length, 0);
    for (size_t token = 0; token < heat.size(); ++token)
        for (const size_t place : places)
            heat[token] += map[token * length + place] / static_cast<float>(places.size());
    return heat;
}

/// What passes over the source's latents half way tell of both prompts.
struct Reading {
    std::vector<float> maps;  ///< (2, tokens, length): source prompt, target prompt
    HeatSpread spread;
};

Reading read_latents(const Walk& walk, const std::vector<Tensor>& latents) {
    auto& stream = walk.stream;
    std::vector<size_t> steps;
    for (size_t i = 0; i < walk.times.size(); ++i)
        if (walk.times[i] >= kReadingBegin && walk.times[i] <= kReadingEnd) steps.push_back(i);
    if (steps.empty()) steps.push_back((walk.times.size() - 1) / 2);
    Taps taps(walk.model.dit, {.grid = walk.grid,
                               .samples = 2,
                               .steps = static_cast<int>(steps.size()),
                               .length = std::ssize(walk.source.ids)});
    Reading reading{.maps = {}, .spread = HeatSpread(walk.model.dit, walk.grid, 0)};
    const Dit::Context both = context_of(stream, walk.model, {&walk.source, &walk.target});
    for (size_t i = 0; i < steps.size(); ++i) {
        walk.check_cancel();
        const Tensor& z = latents[steps[i]];
        forward(walk, stack(stream, {z, z}), walk.times[steps[i]], both,
                reading.spread.around(taps.around({}, static_cast<int>(i))));
    }
    reading.maps = to_host(stream, taps.words(stream).at(0).values);
    return reading;
}

/// Where the picture may change, (tokens): 1 may.
struct Masks {
    std::vector<float> words;   ///< at words that change
    std::vector<float> around;  ///< all but the things that stay, for another background
    /// Latents at the rim of things change with what is around: tokens hold some of both.
    std::vector<float> of_latents(const DitGrid& grid) const {
        const auto things = std::count(around.begin(), around.end(), 0.0f);
        const bool whole = things == 0;  // no thing is left
        auto mask = whole ? around : word_mask(around, grid[1], grid[2], {.threshold = 0.5f});
        for (size_t i = 0; i < mask.size(); ++i) mask[i] = std::max(mask[i], words[i]);
        return mask;
    }
};

Masks find_masks(const Walk& walk, const std::vector<Tensor>& latents) {
    const auto tokens = static_cast<size_t>(walk.grid[1] * walk.grid[2]);
    const std::vector<float> none(tokens, 0), everything(tokens, 1);
    if (walk.request.mask == 0) return {everything, none};
    const Reading reading = read_latents(walk, latents);
    std::vector<float> mask = none, around = none;
    const float threshold = walk.request.mask;
    const auto masked = [&](const std::vector<float>& heat, float above, int grow) {
        return word_mask(heat, walk.grid[1], walk.grid[2], {.threshold = above, .grow = grow});
    };
    const auto join = [](std::vector<float>& all, const std::vector<float>& more) {
        for (size_t i = 0; i < all.size(); ++i) all[i] = std::max(all[i], more[i]);
    };
    const size_t length = walk.source.ids.size(), each = tokens * length;
    const auto heat = [&](size_t prompt, const std::vector<size_t>& places) {
        return heat_of(std::span(reading.maps).subspan(prompt * each, each), length, places);
    };
    const auto add_words = [&](size_t prompt, const std::vector<size_t>& places) {
        if (!places.empty())
            join(mask,
                 masked(reading.spread.spread(walk.stream, heat(prompt, places)), threshold, 1));
    };
    const auto has_place = [&](size_t prompt, const std::vector<size_t>& places) {
        if (places.empty()) return false;
        const auto values = heat(prompt, places);
        return *std::max_element(values.begin(), values.end()) >= kFound;
    };
    if (!walk.request.mask_words.empty()) {
        const Changed words = named_words(walk);
        add_words(0, words.source);
        add_words(1, words.target);
        return {mask, none};
    }
    // Things that the picture shows and whose names stay, with and without what is around them.
    std::vector<float> named(tokens, 0), core(tokens, 0);
    for (const auto& [place, unused] : walk.change.shared) {
        if (names_nothing(walk.source.words[place]) || !has_place(0, {place})) continue;
        const auto spread = reading.spread.spread(walk.stream, heat(0, {place}));
        join(named, masked(spread, threshold, 1));
        join(core, masked(spread, threshold, 0));
    }
    for (const Changed& words : changed_words(walk)) {
        if (words.background) {
            for (size_t i = 0; i < tokens; ++i) around[i] = 1 - core[i];
            continue;
        }
        // The picture shows the source's words: a target's word may be drawn to what looks like it.
        const bool target = has_place(1, words.target);
        if (words.source.empty() ? target : has_place(0, words.source)) {
            add_words(0, words.source);
            if (target) add_words(1, words.target);
        } else if (*std::max_element(named.begin(), named.end()) > 0) {
            join(mask, named);
        } else {
            return {everything, none};
        }
    }
    return {mask, around};
}

// The edited picture where it may change, the given one elsewhere. At changed words the seam lies
// in the token around, where both differ by the autoencoder alone. Another background ends where
// the things do: the mask of tokens is drawn along the given picture's edges.
Image composite(const Walk& walk, const Image& given, const Image& edited, const Masks& masks) {
    constexpr float kRimColor = 1e-3f;  // epsilon of the filter
    constexpr float kStays = 0.2f, kChanges = 0.8f;
    Image tokens{static_cast<int>(walk.grid[2]), static_cast<int>(walk.grid[1]), {}};
    for (const float value : masks.words) tokens.rgb.insert(tokens.rgb.end(), 3, value);
    const Image words = resize(tokens, given.width, given.height);
    std::vector<float> around;
    for (int64_t y = 0; y < given.height; ++y)
        for (int64_t x = 0; x < given.width; ++x)
            around.push_back(masks.around[static_cast<size_t>(
                y * walk.grid[1] / given.height * walk.grid[2] + x * walk.grid[2] / given.width)]);
    // Twice: what is around lies also in the tokens that things do not fill.
    for (int i = 0; i < 2; ++i) {
        around = guided_filter(given, around, 2 * kSideMultiple, kRimColor);
        for (float& share : around)
            share = std::clamp((share - kStays) / (kChanges - kStays), 0.0f, 1.0f);
    }
    Image result = given;
    for (size_t i = 0; i < around.size(); ++i) {
        const float share = std::min(1.0f, std::max(2 * words.rgb[3 * i], around[i]));
        for (size_t c = 3 * i; c < 3 * i + 3; ++c)
            result.rgb[c] += share * (edited.rgb[c] - result.rgb[c]);
    }
    return result;
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

// A mask of tokens on every latent value: (1, height, width, channels).
Tensor latent_mask(const Walk& walk, const std::vector<float>& mask) {
    const int64_t patch = walk.model.dit.config().patch;
    std::vector<float> values;
    for (int64_t y = 0; y < walk.shape[1]; ++y)
        for (int64_t x = 0; x < walk.shape[2]; ++x)
            values.insert(values.end(), static_cast<size_t>(walk.shape[3]),
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
        attention_by(walk.model.dit.patterns(walk.grid)));
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
            walk.guided() ? stack(stream, {z, target, z, target}) : stack(stream, {z, target});
        const Tensor v = difference(walk, forward(walk, batch, walk.times[i], walk.of_all, hooks));
        d = multiply(stream,
                     linear_combination(stream, {{1, d}, {walk.times[i + 1] - walk.times[i], v}}),
                     may_change);
        stream.wait();
        on_step(n + 1);
    }
    return add(stream, latents.back(), d);
}

}  // namespace

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
    result.resized = resize(request.picture, request.width, request.height);
    result.source_latent = encode(walk, result.resized);
    const Inversion inversion = invert(walk, result.source_latent, total);
    result.residual = inversion.residual;
    const Masks masks = find_masks(walk, inversion.latents);
    result.mask = masks.of_latents(walk.grid);
    result.latent = edited(walk, inversion.latents, first, result.mask, [&](size_t step) {
        if (request.on_step) request.on_step(static_cast<int>(steps + step), total);
    });
    result.picture = composite(walk, result.resized, decode(walk, result.latent), masks);
    return result;
}

Edit::RoundTrip Edit::round_trip(vk::Stream& stream, const Model& model, const Request& request) {
    const Walk walk = start(stream, model, request);
    const auto total = static_cast<int>(2 * (walk.times.size() - 1));
    const Tensor latent = encode(walk, resize(request.picture, request.width, request.height));
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
