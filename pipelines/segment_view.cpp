#include "pipelines/segment_view.h"

#include <algorithm>
#include <cmath>

#include "vision/linear.h"
#include "vision/transfer.h"

namespace fovea {
namespace {

float sigmoid(float x) {
    return 1 / (1 + std::exp(-x));
}

// Tiles are worth reading where they show the picture so much larger.
constexpr double kTileGain = 1.5;
// Logits: of an answer that shows nothing, and beyond which one tile outweighs others no more.
constexpr double kNothing = -4, kSure = 8;

/// A cell of a mask of the whole picture within a tile, along one axis.
struct TileCell {
    size_t cell;
    LinearPlace place;  ///< among the tile's cells
    double weight;      ///< more in the tile's middle, at the picture's own edges as there
};

std::vector<TileCell> cells_in(int begin, int end, int length, int cells, int tile_cells) {
    constexpr double kLeast = 0.02;
    std::vector<TileCell> result;
    for (int cell = 0; cell < cells; ++cell) {
        const double share = ((cell + 0.5) * length / cells - begin) / (end - begin);
        if (share < 0 || share >= 1) continue;
        const double from_begin = begin == 0 ? 1 : 2 * share,
                     to_end = end == length ? 1 : 2 * (1 - share);
        result.push_back({.cell = static_cast<size_t>(cell),
                          .place = linear_place(share * tile_cells, tile_cells),
                          .weight = std::clamp(std::min(from_begin, to_end), kLeast, 1.0)});
    }
    return result;
}

// A side of the window in the model's pixels: the window's shape, as many tokens as in training.
int side_of(int pixels, const Box& window, int64_t size) {
    constexpr auto kDown = static_cast<int>(SegmentEncoder::kDown);
    const double area = static_cast<double>(window.width()) * window.height();
    const double exact = pixels * static_cast<double>(size) / std::sqrt(area);
    return std::max(1, static_cast<int>(std::lround(exact / kDown))) * kDown;
}

}  // namespace

SegmentView::SegmentView(vk::Stream& stream, const Segmenter& segmenter, const Image& whole,
                         const Box& window, DType dtype)
    : window(window) {
    const int64_t size = segmenter.config().size;
    picture = resize(crop(whole, window), side_of(window.width(), window, size),
                     side_of(window.height(), window, size));
    features = segmenter.encode(stream, to_device(stream, {picture}, dtype));
}

SegmentPoint SegmentView::place(float x, float y, SegmentPoint::Kind kind) const {
    return {.x = (x - static_cast<float>(window.left)) / static_cast<float>(window.width()),
            .y = (y - static_cast<float>(window.top)) / static_cast<float>(window.height()),
            .kind = kind};
}

std::optional<Box> SegmentAnswer::box() const {
    Mask mask{.width = columns, .height = rows, .hole = {}};
    for (const float logit : logits) mask.hole.push_back(logit > 0);
    if (mask.count() == 0) return std::nullopt;
    const Box cells = mask.box();
    const auto at = [](int cell, int begin, int length, int count, bool end) {
        const double pixel = static_cast<double>(cell) * length / count;
        return begin + static_cast<int>(end ? std::ceil(pixel) : std::floor(pixel));
    };
    return Box{.left = at(cells.left, window.left, window.width(), columns, false),
               .top = at(cells.top, window.top, window.height(), rows, false),
               .right = at(cells.right, window.left, window.width(), columns, true),
               .bottom = at(cells.bottom, window.top, window.height(), rows, true)};
}

std::vector<float> SegmentAnswer::logits_in(const SegmentView& view) const {
    const auto places = [](int64_t count, int begin, int length, int from, int extent, int cells) {
        std::vector<LinearPlace> result;
        for (int64_t i = 0; i < count; ++i) {
            const double pixel = begin + (static_cast<double>(i) + 0.5) * length / count;
            result.push_back(linear_place((pixel - from) * cells / extent, cells));
        }
        return result;
    };
    const auto across = places(4 * view.features.columns, view.window.left, view.window.width(),
                               window.left, window.width(), columns),
               down = places(4 * view.features.rows, view.window.top, view.window.height(),
                             window.top, window.height(), rows);
    std::vector<float> result;
    for (const auto& y : down)
        for (const auto& x : across)
            result.push_back(
                static_cast<float>(sample(logits, static_cast<size_t>(columns), x, y)));
    return result;
}

std::vector<float> SegmentAnswer::probabilities(int width, int height) const {
    const auto across = linear_places(width, columns), down = linear_places(height, rows);
    std::vector<float> result;
    for (const auto& y : down)
        for (const auto& x : across)
            result.push_back(
                sigmoid(static_cast<float>(sample(logits, static_cast<size_t>(columns), x, y))));
    return result;
}

std::vector<Box> tiles_of(int width, int height, int64_t size) {
    const double pixels = std::sqrt(static_cast<double>(width) * height);
    const double share = std::max(0.5, static_cast<double>(size) / pixels);
    if (share * kTileGain > 1) return {};
    const auto places = [share](int length) {
        const int side = static_cast<int>(std::lround(share * length));
        const int count = (length - side + side / 2 - 1) / (side / 2) + 1;
        std::vector<std::pair<int, int>> result;
        for (int i = 0; i < count; ++i) {
            const int begin = count > 1 ? (length - side) * i / (count - 1) : 0;
            result.emplace_back(begin, begin + side);
        }
        return result;
    };
    std::vector<Box> tiles;
    for (const auto& [top, bottom] : places(height))
        for (const auto& [left, right] : places(width)) tiles.push_back({left, top, right, bottom});
    return tiles;
}

SegmentAnswer merge(const SegmentAnswer& whole, const std::vector<SegmentAnswer>& tiles) {
    SegmentAnswer merged = whole;
    const double finer = static_cast<double>(whole.window.width()) / tiles.at(0).window.width();
    merged.rows = static_cast<int>(std::lround(whole.rows * finer));
    merged.columns = static_cast<int>(std::lround(whole.columns * finer));
    const auto columns = static_cast<size_t>(merged.columns);
    const auto cells = static_cast<size_t>(merged.rows) * columns;
    std::vector<double> sums(cells), weights(cells);
    for (const auto& tile : tiles) {
        const bool shows = tile.shows();
        if (shows) {
            merged.score = std::max(merged.score, tile.score);
            merged.found = std::max(merged.found, tile.found);
        }
        const auto down = cells_in(tile.window.top, tile.window.bottom, whole.window.height(),
                                   merged.rows, tile.rows),
                   across = cells_in(tile.window.left, tile.window.right, whole.window.width(),
                                     merged.columns, tile.columns);
        for (const auto& y : down)
            for (const auto& x : across) {
                const double logit =
                    shows ? sample(tile.logits, static_cast<size_t>(tile.columns), x.place, y.place)
                          : kNothing;
                const size_t at = y.cell * columns + x.cell;
                sums[at] += x.weight * y.weight * std::clamp(logit, -kSure, kSure);
                weights[at] += x.weight * y.weight;
            }
    }
    merged.logits.clear();
    const auto across = linear_places(merged.columns, whole.columns),
               down = linear_places(merged.rows, whole.rows);
    const bool shows = whole.shows();
    for (size_t y = 0; y < down.size(); ++y)
        for (size_t x = 0; x < columns; ++x) {
            const double far =
                shows ? sample(whole.logits, static_cast<size_t>(whole.columns), across[x], down[y])
                      : kNothing;
            const size_t at = y * columns + x;
            merged.logits.push_back(static_cast<float>(std::max(far, sums[at] / weights[at])));
        }
    return merged;
}

SegmentAnswer answer_of(const Mask& mask) {
    constexpr float kLogit = 4;
    SegmentAnswer answer{.window = {0, 0, mask.width, mask.height},
                         .rows = mask.height,
                         .columns = mask.width,
                         .logits = {},
                         .score = 1,
                         .found = 1};
    for (const uint8_t inside : mask.hole) answer.logits.push_back(inside ? kLogit : -kLogit);
    return answer;
}

std::vector<SegmentAnswer> answers(vk::Stream& stream, const Segmenter& segmenter,
                                   const SegmentView& view, const SegmentPrompts& prompts,
                                   bool any_mask) {
    const SegmentAnswers found = segmenter.answer(stream, view.features, prompts);
    const auto scores = to_host(stream, found.scores), logits = to_host(stream, found.logits);
    const auto masks = static_cast<size_t>(found.logits.dim(1));
    const size_t each = logits.size() / masks / static_cast<size_t>(prompts.count);
    std::vector<SegmentAnswer> result;
    for (size_t i = 0; i < static_cast<size_t>(prompts.count); ++i) {
        const auto own = scores.begin() + static_cast<long>(i * (masks + 1));
        const auto best = any_mask ? std::max_element(own, own + static_cast<long>(masks)) : own;
        const auto first = logits.begin() +
                           static_cast<long>((i * masks + static_cast<size_t>(best - own)) * each);
        result.push_back({.window = view.window,
                          .rows = static_cast<int>(found.logits.dim(2)),
                          .columns = static_cast<int>(found.logits.dim(3)),
                          .logits = {first, first + static_cast<long>(each)},
                          .score = sigmoid(*best),
                          .found = sigmoid(own[static_cast<long>(masks)])});
    }
    return result;
}

}  // namespace fovea
