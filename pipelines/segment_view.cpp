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
