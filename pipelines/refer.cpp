#include "pipelines/refer.h"

#include <algorithm>
#include <cmath>

#include "backend/error.h"
#include "pipelines/denoise.h"
#include "vision/guided_filter.h"
#include "vision/prompt_words.h"
#include "vision/taps/word_mask.h"

namespace fovea {
namespace {

constexpr int kUnit = Autoencoder::kDown * 2;  // pixels of a token

/// The model's sides for a picture's: the longer one is `size`, none is shorter than it can draw.
std::pair<int, int> sides_of(const Image& picture, int size) {
    const float scale =
        static_cast<float>(size) / static_cast<float>(std::max(picture.width, picture.height));
    const auto side = [&](int pixels) {
        const float tokens = static_cast<float>(pixels) * scale / static_cast<float>(kUnit);
        return std::max(kMinSide, static_cast<int>(std::lround(tokens)) * kUnit);
    };
    return {side(picture.width), side(picture.height)};
}

void to_unit(std::vector<float>& heat) {
    const auto [least, most] = std::minmax_element(heat.begin(), heat.end());
    const float low = *least, range = *most - low;
    for (float& value : heat) value = range > 0 ? (value - low) / range : 0;
}

/// Sinks take the mean of the tokens beside them that are none.
void suppress(std::vector<float>& heat, const std::vector<float>& received, int64_t rows,
              int64_t columns, float limit) {
    float mean = 0;
    for (const float value : received) mean += value / static_cast<float>(received.size());
    const auto is_sink = [&](int64_t token) {
        return received[static_cast<size_t>(token)] > limit * mean;
    };
    const std::vector<float> before = heat;
    for (int64_t token = 0; token < rows * columns; ++token) {
        if (!is_sink(token)) continue;
        float sum = 0;
        int count = 0;
        for (int64_t y = token / columns - 1; y <= token / columns + 1; ++y)
            for (int64_t x = token % columns - 1; x <= token % columns + 1; ++x) {
                if (y < 0 || y >= rows || x < 0 || x >= columns || is_sink(y * columns + x))
                    continue;
                sum += before[static_cast<size_t>(y * columns + x)];
                ++count;
            }
        heat[static_cast<size_t>(token)] = count > 0 ? sum / static_cast<float>(count) : 0;
    }
}

/// A map of any size as one of the picture's, along its edges.
std::vector<float> draw_along(const Image& picture, const std::vector<float>& map, int width,
                              int height, int radius) {
    constexpr float kEpsilon = 1e-3f;
    Image grid{width, height, {}};
    for (const float value : map) grid.rgb.insert(grid.rgb.end(), 3, value);
    const Image large = resize(grid, picture.width, picture.height);
    std::vector<float> values(large.rgb.size() / 3);
    for (size_t i = 0; i < values.size(); ++i) values[i] = large.rgb[3 * i];
    return guided_filter(picture, values, radius, kEpsilon);
}

/// What of the mask hangs together with the heat's peak; the largest part where the peak is
/// outside, as masks drawn along edges have it.
Mask part_at_peak(const Refer::Result& found) {
    const auto parts = parts_of(found.mask);
    std::vector<int64_t> areas(parts.boxes.size());
    for (const int32_t part : parts.part)
        if (part >= 0) ++areas[static_cast<size_t>(part)];
    auto kept = static_cast<int32_t>(std::max_element(areas.begin(), areas.end()) - areas.begin());
    const auto at = static_cast<size_t>(found.peak_y) * static_cast<size_t>(found.mask.width) +
                    static_cast<size_t>(found.peak_x);
    if (parts.part[at] >= 0) kept = parts.part[at];
    Mask result = found.mask;
    for (size_t i = 0; i < parts.part.size(); ++i) result.hole[i] = parts.part[i] == kept;
    return result;
}

}  // namespace

Refer::Result Refer::run(vk::Stream& stream, const Model& model, const Request& request) {
    const auto [width, height] = sides_of(request.picture, request.size);
    const auto length = static_cast<int>(model.text.config().length);
    const auto phrase = known_words(model.tokenizer, request.words, length);
    std::vector<size_t> places;
    for (size_t i = 0; i < phrase.words.size(); ++i)
        if (!names_nothing(phrase.words[i])) places.push_back(i);
    require(!places.empty(),
            "[segment] \"{}\" names nothing, expected what the picture shows, as in \"the red "
            "apple\"",
            request.words);

    Lens::Request asked;
    asked.prompt = request.words + (request.magnets.empty() ? "" : " " + request.magnets);
    asked.seed = request.seed;
    asked.width = width;
    asked.height = height;
    asked.picture = request.picture;
    asked.times = request.times;
    asked.taps.received = request.sinks > 0;
    asked.on_step = request.on_step;
    asked.cancel = request.cancel;
    const DitGrid grid = model.dit.grid({1, height / Autoencoder::kDown, width / Autoencoder::kDown,
                                         model.dit.config().latent_channels});
    HeatSpread spread(model.dit, grid, 0);
    if (request.spread > 0) asked.around = [&](DitHooks hooks) { return spread.around(hooks); };
    const auto seen = Lens::run(stream, model, asked);

    Result result{.rows = seen.rows, .columns = seen.columns};
    const std::vector<float> shares = seen.heat(seen.maps.at(0), places);
    result.heat = shares;
    if (request.sinks > 0)
        suppress(result.heat, seen.received, seen.rows, seen.columns, request.sinks);
    if (request.spread > 0) result.heat = spread.spread(stream, result.heat, request.spread);
    to_unit(result.heat);

    const auto peak =
        std::max_element(result.heat.begin(), result.heat.end()) - result.heat.begin();
    const auto middle = [](int64_t at, int64_t count, int pixels) {
        return (static_cast<float>(at) + 0.5f) / static_cast<float>(count) *
               static_cast<float>(pixels);
    };
    result.peak_x = middle(peak % seen.columns, seen.columns, request.picture.width);
    result.peak_y = middle(peak / seen.columns, seen.rows, request.picture.height);

    // First at the model's size, where a token is a few pixels, then at the picture's.
    const auto small = draw_along(seen.picture, result.heat, static_cast<int>(seen.columns),
                                  static_cast<int>(seen.rows), kUnit / 2);
    result.mask = {.width = request.picture.width, .height = request.picture.height, .hole = {}};
    for (const float value : draw_along(request.picture, small, width, height,
                                        std::max(2, request.picture.width / width * 2)))
        result.mask.hole.push_back(value > request.threshold);

    float inside = 0, outside = 0;
    int within = 0;
    for (size_t token = 0; token < shares.size(); ++token) {
        const bool in = result.heat[token] > request.threshold;
        within += in;
        (in ? inside : outside) += shares[token];
    }
    const auto beyond = static_cast<int>(shares.size()) - within;
    result.contrast = inside / static_cast<float>(std::max(1, within)) -
                      outside / static_cast<float>(std::max(1, beyond));
    return result;
}

Segment to_segment(const Refer::Result& found) {
    return {.width = found.mask.width,
            .height = found.mask.height,
            .opacity = {found.mask.hole.begin(), found.mask.hole.end()},
            .score = std::max(0.0f, found.contrast),
            .first = {},
            .last = {}};
}

SegmentPrompt refer_prompt(const Refer::Result& found, ReferPrompt kind) {
    SegmentPrompt prompt;
    const Mask part = part_at_peak(found);
    const bool shows = part.count() > 0;
    if (!shows || kind == ReferPrompt::point || kind == ReferPrompt::point_and_box)
        prompt.points.push_back({.x = found.peak_x, .y = found.peak_y});
    if (shows && kind == ReferPrompt::mask) prompt.earlier = answer_of(part);
    if (shows && (kind == ReferPrompt::box || kind == ReferPrompt::point_and_box))
        prompt.box = corners_of(part.box());
    return prompt;
}

}  // namespace fovea
