#include "vision/palette.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "backend/error.h"

namespace fovea {
namespace {

constexpr int kDither = 8;  // of 255: about the distance of 256 colours of a drawing

struct Counted {
    Color color;
    double count;
};

struct Box {
    std::vector<Counted> colors;
    std::array<double, 3> mean{};
    double error = 0;  // squared, over all axes and pixels
    size_t widest = 0;

    explicit Box(std::vector<Counted> all) : colors(std::move(all)) {
        double count = 0;
        std::array<double, 3> squares{};
        for (const auto& [color, n] : colors) {
            count += n;
            for (size_t c = 0; c < 3; ++c) {
                mean[c] += n * color[c];
                squares[c] += n * color[c] * color[c];
            }
        }
        std::array<double, 3> errors{};
        for (size_t c = 0; c < 3; ++c) {
            mean[c] /= count;
            errors[c] = std::max(0.0, squares[c] - count * mean[c] * mean[c]);
            error += errors[c];
        }
        widest =
            static_cast<size_t>(std::max_element(errors.begin(), errors.end()) - errors.begin());
        if (colors.size() == 1) error = 0;  // rounding could say otherwise
    }
};

std::vector<Counted> count(std::span<const uint8_t> rgb) {
    std::vector<uint32_t> packed;
    packed.reserve(rgb.size() / 3);
    for (size_t i = 0; i + 2 < rgb.size(); i += 3)
        packed.push_back(uint32_t{rgb[i]} << 16 | uint32_t{rgb[i + 1]} << 8 | rgb[i + 2]);
    std::sort(packed.begin(), packed.end());
    std::vector<Counted> colors;
    for (size_t i = 0; i < packed.size(); ++i) {
        if (i == 0 || packed[i] != packed[i - 1])
            colors.push_back(
                {{static_cast<uint8_t>(packed[i] >> 16), static_cast<uint8_t>(packed[i] >> 8),
                  static_cast<uint8_t>(packed[i])},
                 0});
        colors.back().count += 1;
    }
    return colors;
}

// −1/2 … 1/2 of the dither.
float bayer(int x, int y) {
    int value = 0;
    for (int bit = 0; bit < 3; ++bit) {
        const int a = x >> bit & 1, b = y >> bit & 1;
        value = value << 2 | (a ^ b) << 1 | b;
    }
    return (static_cast<float>(value) + 0.5f) / 64.0f - 0.5f;
}

}  // namespace

Palette::Palette(std::span<const uint8_t> rgb, size_t most) {
    require(most >= 1 && most <= 256 && !rgb.empty() && rgb.size() % 3 == 0,
            "[palette] 1 to 256 colours of whole pixels expected, found {} of {} bytes", most,
            rgb.size());
    auto all = count(rgb);
    exact_ = all.size() <= most;
    std::vector<Box> boxes;
    if (exact_)
        for (const Counted& one : all) boxes.emplace_back(std::vector{one});
    else
        boxes.emplace_back(std::move(all));
    while (boxes.size() < most) {
        const auto worst =
            std::max_element(boxes.begin(), boxes.end(),
                             [](const Box& a, const Box& b) { return a.error < b.error; });
        if (worst->error <= 0) break;
        const size_t axis = worst->widest;
        const double mean = worst->mean[axis];
        auto colors = std::move(worst->colors);
        const auto middle = std::partition(colors.begin(), colors.end(),
                                           [&](const Counted& c) { return c.color[axis] <= mean; });
        Box upper(std::vector(middle, colors.end()));
        colors.erase(middle, colors.end());
        *worst = Box(std::move(colors));
        boxes.push_back(std::move(upper));
    }
    for (const Box& box : boxes) {
        Color color;
        for (size_t c = 0; c < 3; ++c) color[c] = static_cast<uint8_t>(std::lround(box.mean[c]));
        colors_.push_back(color);
    }
    std::sort(colors_.begin(), colors_.end());
}

std::vector<uint8_t> Palette::indices(std::span<const uint8_t> rgb, int width) const {
    std::vector<uint8_t> result(rgb.size() / 3);
    for (size_t i = 0; i < result.size(); ++i) {
        const auto x = static_cast<int>(i % static_cast<size_t>(width)),
                   y = static_cast<int>(i / static_cast<size_t>(width));
        const int shift =
            exact_ ? 0 : static_cast<int>(std::lround(bayer(x, y) * static_cast<float>(kDither)));
        int best = 0, least = 1 << 30;
        for (size_t c = 0; c < colors_.size(); ++c) {
            int distance = 0;
            for (size_t axis = 0; axis < 3; ++axis) {
                const int d = rgb[3 * i + axis] + shift - colors_[c][axis];
                distance += d * d;
            }
            if (distance < least) {
                least = distance;
                best = static_cast<int>(c);
            }
        }
        result[i] = static_cast<uint8_t>(best);
    }
    return result;
}

}  // namespace fovea
