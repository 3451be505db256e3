#include <algorithm>
#include <span>

#include "pipelines/edit_parts.h"
#include "vision/guided_filter.h"
#include "vision/taps/taps.h"
#include "vision/taps/word_mask.h"

namespace fovea::editing {
namespace {

constexpr float kReadingBegin = 0.35f, kReadingEnd = 0.65f;  // times at which words are located
// Share of attention at its peak from which a word has a place of its own: of the default model,
// names of things that are there reach 9 to 22 % (single words of them from 5), of others 3,
// colours of the background 1 to 3, styles 1.5 to 5.6.
constexpr float kFound = 0.05f;

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
    // Words of both prompts whose attention is weighted change what they show, too.
    for (const auto& [phrase, factor] : walk.request.weights) {
        if (factor == 1) continue;
        Changed words{.source = {},
                      .target = find_phrase(walk.model.tokenizer, walk.target.words, phrase)};
        words.background = describes_background(walk.target.words,
                                                {words.target.front(), words.target.back() + 1});
        for (const auto& [source, target] : walk.change.shared)
            if (std::ranges::find(words.target, target) != words.target.end())
                words.source.push_back(source);
        if (!words.source.empty()) result.push_back(std::move(words));
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
    const DitHooks own{.attention = walk.attention};
    const Dit::Context both = context_of(stream, walk.model, {&walk.source, &walk.target});
    for (size_t i = 0; i < steps.size(); ++i) {
        walk.check_cancel();
        const Tensor& z = latents[steps[i]];
        forward(walk, stacked(stream, {z, z}), walk.times[steps[i]], both,
                reading.spread.around(taps.around(own, static_cast<int>(i))));
    }
    reading.maps = to_host(stream, taps.words(stream).at(0).values);
    return reading;
}

}  // namespace

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

std::vector<float> Masks::of_latents(const DitGrid& grid) const {
    const auto things = std::count(around.begin(), around.end(), 0.0f);
    const bool whole = things == 0;  // no thing is left
    auto mask = whole ? around
                      : word_mask(around, grid[1], grid[2], {.threshold = 0.5f, .frames = grid[0]});
    for (size_t i = 0; i < mask.size(); ++i) mask[i] = std::max(mask[i], words[i]);
    return mask;
}

Masks find_masks(const Walk& walk, const std::vector<Tensor>& latents) {
    const auto tokens = static_cast<size_t>(walk.frames() * walk.frame_tokens());
    const std::vector<float> none(tokens, 0), everything(tokens, 1);
    if (walk.request.mask == 0) return {everything, none};
    const Reading reading = read_latents(walk, latents);
    std::vector<float> mask = none, around = none;
    const float threshold = walk.request.mask;
    const auto masked = [&](const std::vector<float>& heat, float above, int grow) {
        return word_mask(heat, walk.grid[1], walk.grid[2],
                         {.threshold = above, .grow = grow, .frames = walk.frames()});
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

Image composite(const Walk& walk, int64_t frame, const Image& given, const Image& edited,
                const Masks& masks) {
    constexpr float kRimColor = 1e-3f;  // epsilon of the filter
    constexpr float kStays = 0.2f, kChanges = 0.8f;
    const auto first = static_cast<size_t>(frame * walk.frame_tokens());
    Image tokens{static_cast<int>(walk.grid[2]), static_cast<int>(walk.grid[1]), {}};
    for (size_t i = 0; i < static_cast<size_t>(walk.frame_tokens()); ++i)
        tokens.rgb.insert(tokens.rgb.end(), 3, masks.words[first + i]);
    const Image words = resize(tokens, given.width, given.height);
    std::vector<float> around;
    for (int64_t y = 0; y < given.height; ++y)
        for (int64_t x = 0; x < given.width; ++x)
            around.push_back(
                masks.around[first +
                             static_cast<size_t>(y * walk.grid[1] / given.height * walk.grid[2] +
                                                 x * walk.grid[2] / given.width)]);
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

}  // namespace fovea::editing
