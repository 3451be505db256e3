#include "apps/segment_draw.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "apps/label.h"
#include "vision/rle.h"

namespace fovea::apps {
namespace {

constexpr float kDark = 0.45f, kTint = 0.5f;  // of a picture where nothing is, and of colours

// Hues far from one another, whatever their number.
Color color_of(size_t index) {
    const double hue = std::fmod(0.02 + 0.618034 * static_cast<double>(index), 1.0);
    Color color;
    for (size_t c = 0; c < 3; ++c) {
        const double away = std::abs(std::fmod(hue * 6 + 6 - 2 * static_cast<double>(c), 6.0) - 3);
        color[c] = static_cast<float>(std::clamp(away - 1, 0.1, 1.0));
    }
    return color;
}

// Large ones first, to be drawn behind the others.
std::vector<size_t> by_size(const std::vector<Segment>& segments) {
    std::vector<double> sizes;
    for (const auto& segment : segments)
        sizes.push_back(std::accumulate(segment.opacity.begin(), segment.opacity.end(), 0.0));
    std::vector<size_t> order(segments.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return sizes[a] > sizes[b]; });
    return order;
}

}  // namespace

Image draw_masks(const std::vector<Segment>& segments, int width, int height) {
    if (segments.size() == 1) return picture_of(segments[0].mask());
    const auto pixels = static_cast<size_t>(width) * static_cast<size_t>(height);
    Image image{width, height, std::vector<float>(3 * pixels)};
    for (const size_t index : by_size(segments)) {
        const Color color = color_of(index);
        for (size_t i = 0; i < pixels; ++i)
            if (segments[index].opacity[i] >= 0.5f)
                std::copy(color.begin(), color.end(), &image.rgb[3 * i]);
    }
    return image;
}

Image draw_overlay(const Image& picture, const std::vector<Segment>& segments) {
    Image image = picture;
    for (float& value : image.rgb) value *= kDark;
    for (const size_t index : by_size(segments)) {
        const Color color = color_of(index);
        const auto& opacity = segments[index].opacity;
        for (size_t v = 0; v < image.rgb.size(); ++v) {
            const float shown = picture.rgb[v] + kTint * (color[v % 3] - picture.rgb[v]);
            image.rgb[v] += opacity[v / 3] * (shown - image.rgb[v]);
        }
    }
    return image;
}

nlohmann::json json_of(const Segment& segment) {
    const Mask mask = segment.mask();
    const Box box = mask.box();
    return {{"score", segment.score},
            {"area", mask.count()},
            {"bbox", {box.left, box.top, box.width(), box.height()}},
            {"segmentation", {{"size", {mask.height, mask.width}}, {"counts", encode_rle(mask)}}}};
}

std::string to_text(const Segment& segment) {
    const Mask mask = segment.mask();
    const Box box = mask.box();
    return fmt::format(
        "score {:.2f}, {} pixels ({:.1f} %), box {},{},{},{}", segment.score, mask.count(),
        100 * static_cast<double>(mask.count()) / static_cast<double>(mask.hole.size()), box.left,
        box.top, box.right, box.bottom);
}

}  // namespace fovea::apps
