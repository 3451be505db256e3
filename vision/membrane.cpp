#include "vision/membrane.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "backend/error.h"

namespace fovea {
namespace {

constexpr float kSettled = 1e-6f;  // change of a sweep at which the membrane rests
constexpr int kMostSweeps = 500;
// Differences of the edge from their median up to here are of tone and spread through the hole,
// what is more, as where the edge cuts an object, fades within a few pixels.
constexpr float kTone = 0.04f;
constexpr float kFade = 3;
constexpr int kNear = 4;  // pixels from the edge that count as near it

size_t at(int width, int x, int y) {
    return static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x);
}

// Relaxes the hole of an image whose values there are a first guess: Δf = f · pull.
void relax(Image& image, const Mask& mask, float pull = 0) {
    const int w = image.width, h = image.height;
    const Box box = mask.box();
    const int extent = std::max(box.width(), box.height()) + 1;
    // Optimal over-relaxation for a square of this side; what is pulled settles sooner.
    const double rate = std::cos(std::numbers::pi / (extent + 1)) * 4 / (4 + pull);
    const auto omega = static_cast<float>(2 / (1 + std::sqrt(1 - rate * rate)));
    for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
        float most = 0;
        for (int y = box.top; y < box.bottom; ++y)
            for (int x = box.left; x < box.right; ++x) {
                if (!mask.at(x, y)) continue;
                std::array<float, 3> sum{};
                float count = 0;
                const auto add = [&](int u, int v) {
                    if (u < 0 || v < 0 || u >= w || v >= h) return;
                    for (size_t c = 0; c < 3; ++c) sum[c] += image.rgb[3 * at(w, u, v) + c];
                    ++count;
                };
                add(x - 1, y);
                add(x + 1, y);
                add(x, y - 1);
                add(x, y + 1);
                if (count == 0) continue;
                for (size_t c = 0; c < 3; ++c) {
                    float& value = image.rgb[3 * at(w, x, y) + c];
                    const float change = omega * (sum[c] / (count + pull) - value);
                    value += change;
                    most = std::max(most, std::abs(change));
                }
            }
        if (most < kSettled) break;
    }
}

// Half the size: the mean of the known pixels of 2 × 2, a hole where there is none.
void halve(const Image& image, const Mask& mask, Image& small, Mask& holes) {
    small = {.width = (image.width + 1) / 2, .height = (image.height + 1) / 2, .rgb = {}};
    holes = {.width = small.width, .height = small.height, .hole = {}};
    for (int y = 0; y < small.height; ++y)
        for (int x = 0; x < small.width; ++x) {
            std::array<float, 3> sum{};
            float count = 0;
            for (int v = 2 * y; v < std::min(2 * y + 2, image.height); ++v)
                for (int u = 2 * x; u < std::min(2 * x + 2, image.width); ++u) {
                    if (mask.at(u, v)) continue;
                    for (size_t c = 0; c < 3; ++c)
                        sum[c] += image.rgb[3 * at(image.width, u, v) + c];
                    ++count;
                }
            holes.hole.push_back(count == 0);
            for (const float value : sum) small.rgb.push_back(count == 0 ? 0 : value / count);
        }
}

void fill(Image& image, const Mask& mask) {
    const int64_t holes = mask.count();
    if (holes == 0 || (image.width == 1 && image.height == 1)) return;
    Image small;
    Mask small_mask;
    halve(image, mask, small, small_mask);
    fill(small, small_mask);
    for (int y = 0; y < image.height; ++y)
        for (int x = 0; x < image.width; ++x)
            if (mask.at(x, y))
                for (size_t c = 0; c < 3; ++c)
                    image.rgb[3 * at(image.width, x, y) + c] =
                        small.rgb[3 * at(small.width, x / 2, y / 2) + c];
    relax(image, mask);
}

// The image without what its hole holds.
Image cleared(const Image& image, const Mask& mask) {
    Image result = image;
    for (size_t i = 0; i < mask.hole.size(); ++i)
        if (mask.hole[i]) std::fill_n(&result.rgb[3 * i], 3, 0.0f);
    return result;
}

// Of each channel, over known pixels beside the hole.
std::array<float, 3> median_of_edge(const Image& image, const Mask& mask) {
    std::array<std::vector<float>, 3> values;
    const auto in_hole = [&](int x, int y) {
        return x >= 0 && y >= 0 && x < mask.width && y < mask.height && mask.at(x, y);
    };
    for (int y = 0; y < mask.height; ++y)
        for (int x = 0; x < mask.width; ++x)
            if (!mask.at(x, y) &&
                (in_hole(x - 1, y) || in_hole(x + 1, y) || in_hole(x, y - 1) || in_hole(x, y + 1)))
                for (size_t c = 0; c < 3; ++c)
                    values[c].push_back(image.rgb[3 * at(mask.width, x, y) + c]);
    std::array<float, 3> median{};
    for (size_t c = 0; c < 3; ++c) {
        if (values[c].empty()) continue;
        const auto middle = values[c].begin() + std::ssize(values[c]) / 2;
        std::nth_element(values[c].begin(), middle, values[c].end());
        median[c] = *middle;
    }
    return median;
}

void require_size(const Image& image, int width, int height) {
    require(image.width == width && image.height == height,
            "[membrane] {}×{} and {}×{} pixels found, expected the same", image.width, image.height,
            width, height);
}

}  // namespace

Image membrane(const Image& image, const Mask& mask) {
    require_size(image, mask.width, mask.height);
    Image result = cleared(image, mask);
    if (mask.count() < std::ssize(mask.hole)) fill(result, mask);
    return result;
}

Image blend(const Image& image, const Image& fill, const Mask& mask) {
    require_size(image, mask.width, mask.height);
    require_size(fill, mask.width, mask.height);
    Image tone = image;
    for (size_t v = 0; v < tone.rgb.size(); ++v) tone.rgb[v] -= fill.rgb[v];
    const auto median = median_of_edge(tone, mask);
    Image rest = tone;
    for (size_t v = 0; v < tone.rgb.size(); ++v) {
        const float middle = median[v % 3];
        tone.rgb[v] = std::clamp(tone.rgb[v], middle - kTone, middle + kTone);
        rest.rgb[v] -= tone.rgb[v];
    }
    tone = membrane(tone, mask);
    rest = cleared(rest, mask);
    relax(rest, mask, 1 / (kFade * kFade));
    Image result = image;
    for (size_t i = 0; i < mask.hole.size(); ++i)
        if (mask.hole[i])
            for (size_t v = 3 * i; v < 3 * i + 3; ++v)
                result.rgb[v] = std::clamp(fill.rgb[v] + tone.rgb[v] + rest.rgb[v], 0.0f, 1.0f);
    return result;
}

Seam seam_of(const Image& image, const Mask& mask) {
    require_size(image, mask.width, mask.height);
    const int w = mask.width, h = mask.height;
    std::vector<uint8_t> near(mask.hole.size(), 0);
    const auto pairs = [&](const auto& each) {
        for (int y = 0; y < h; ++y)
            for (int x = 0; x < w; ++x) {
                if (x + 1 < w) each(x, y, x + 1, y);
                if (y + 1 < h) each(x, y, x, y + 1);
            }
    };
    pairs([&](int x, int y, int u, int v) {
        if (mask.at(x, y) == mask.at(u, v)) return;
        for (int b = std::max(0, y - kNear); b <= std::min(h - 1, v + kNear); ++b)
            std::fill(near.begin() + static_cast<long>(at(w, std::max(0, x - kNear), b)),
                      near.begin() + static_cast<long>(at(w, std::min(w - 1, u + kNear), b)) + 1,
                      1);
    });
    double across = 0, nearby = 0, edges = 0, others = 0;
    pairs([&](int x, int y, int u, int v) {
        const size_t one = at(w, x, y), other = at(w, u, v);
        if (!near[one] || !near[other]) return;
        double difference = 0;
        for (size_t c = 0; c < 3; ++c)
            difference +=
                std::abs(double{image.rgb[3 * one + c]} - image.rgb[3 * other + c]) * 255 / 3;
        const bool is_edge = mask.hole[one] != mask.hole[other];
        (is_edge ? across : nearby) += difference;
        ++(is_edge ? edges : others);
    });
    return {edges > 0 ? across / edges : 0, others > 0 ? nearby / others : 0};
}

}  // namespace fovea
