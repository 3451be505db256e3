#include "vision/mask.h"

#include <algorithm>
#include <cmath>

#include "backend/error.h"

namespace fovea {
namespace {

constexpr int kContext = 8;  // of a large hole's side, the part that is seen on either side of it

Mask empty_mask(int width, int height) {
    return {.width = width,
            .height = height,
            .hole = std::vector<uint8_t>(static_cast<size_t>(width) * static_cast<size_t>(height))};
}

int reflected(int at, int count) {
    const int turn = 2 * count, within = ((at % turn) + turn) % turn;
    return within < count ? within : turn - 1 - within;
}

int rounded_up(double value, int multiple) {
    return static_cast<int>(std::ceil(value / multiple)) * multiple;
}

/// The window of one tile along one axis.
struct Side {
    int begin, end, drawn;  ///< pixels of the picture, and of the model
};

// Room that [begin, end) of a picture's side takes with its margins, in the picture's pixels.
int needed(int begin, int end, int extent, const TileLimits& limits) {
    const int margin = std::max(limits.margin, (end - begin) / kContext);
    return std::min(end - begin + 2 * margin,
                    std::max(limits.least, rounded_up(extent, limits.multiple)));
}

Side place(int begin, int end, int extent, double scale, const TileLimits& limits) {
    const int whole = std::max(limits.least, rounded_up(extent / scale, limits.multiple));
    const int wanted = rounded_up(needed(begin, end, extent, limits) / scale, limits.multiple);
    const int drawn = std::min(std::clamp(wanted, limits.usual, limits.most), whole);
    const int length = static_cast<int>(std::lround(drawn * scale));
    const int first = std::clamp((begin + end - length) / 2, 0, std::max(0, extent - length));
    return {first, first + length, drawn};
}

}  // namespace

bool Box::contains(const Box& other) const {
    return left <= other.left && top <= other.top && right >= other.right && bottom >= other.bottom;
}

Box Box::united(const Box& other) const {
    return {std::min(left, other.left), std::min(top, other.top), std::max(right, other.right),
            std::max(bottom, other.bottom)};
}

int64_t Mask::count() const {
    return std::count(hole.begin(), hole.end(), 1);
}

Box Mask::box() const {
    Box box{width, height, 0, 0};
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
            if (at(x, y)) box = box.united({x, y, x + 1, y + 1});
    return box.right == 0 ? Box{} : box;
}

Mask mask_of(const Image& image) {
    Mask mask = empty_mask(image.width, image.height);
    for (size_t i = 0; i < mask.hole.size(); ++i)
        mask.hole[i] = image.rgb[3 * i] + image.rgb[3 * i + 1] + image.rgb[3 * i + 2] >= 1.5f;
    return mask;
}

Mask mask_of(const std::vector<float>& opacity, int width, int height) {
    Mask mask = empty_mask(width, height);
    require(opacity.empty() || opacity.size() == mask.hole.size(),
            "[mask] {} values found, expected {}×{}", opacity.size(), width, height);
    for (size_t i = 0; i < opacity.size(); ++i) mask.hole[i] = opacity[i] < 0.5f;
    return mask;
}

Mask mask_of(const Box& box, int width, int height) {
    Mask mask = empty_mask(width, height);
    for (int y = std::max(0, box.top); y < std::min(height, box.bottom); ++y)
        for (int x = std::max(0, box.left); x < std::min(width, box.right); ++x) mask.at(x, y) = 1;
    return mask;
}

Image picture_of(const Mask& mask) {
    Image image{mask.width, mask.height, {}};
    image.rgb.reserve(3 * mask.hole.size());
    for (const uint8_t hole : mask.hole) image.rgb.insert(image.rgb.end(), 3, hole);
    return image;
}

HoleParts parts_of(const Mask& mask) {
    HoleParts parts{.boxes = {}, .part = std::vector<int32_t>(mask.hole.size(), -1)};
    std::vector<size_t> open;  // pixels whose neighbours are not looked at yet
    for (size_t start = 0; start < mask.hole.size(); ++start) {
        if (!mask.hole[start] || parts.part[start] >= 0) continue;
        const auto number = static_cast<int32_t>(parts.boxes.size());
        Box box{mask.width, mask.height, 0, 0};
        parts.part[start] = number;
        open.push_back(start);
        while (!open.empty()) {
            const auto at = static_cast<int>(open.back());
            open.pop_back();
            const int x = at % mask.width, y = at / mask.width;
            box = box.united({x, y, x + 1, y + 1});
            for (int v = std::max(0, y - 1); v <= std::min(mask.height - 1, y + 1); ++v)
                for (int u = std::max(0, x - 1); u <= std::min(mask.width - 1, x + 1); ++u) {
                    const auto next = static_cast<size_t>(v) * static_cast<size_t>(mask.width) +
                                      static_cast<size_t>(u);
                    if (!mask.hole[next] || parts.part[next] >= 0) continue;
                    parts.part[next] = number;
                    open.push_back(next);
                }
        }
        parts.boxes.push_back(box);
    }
    return parts;
}

std::vector<Tile> plan_tiles(const Mask& mask, const TileLimits& limits) {
    const HoleParts parts = parts_of(mask);
    const int width = mask.width, height = mask.height;
    const auto room = [&](const Box& box) {
        return std::pair(needed(box.left, box.right, width, limits),
                         needed(box.top, box.bottom, height, limits));
    };
    std::vector<bool> done(parts.boxes.size(), false);
    std::vector<Tile> tiles;
    for (size_t first = 0; first < parts.boxes.size(); ++first) {
        if (done[first]) continue;
        Box box = parts.boxes[first];
        for (size_t i = first + 1; i < parts.boxes.size(); ++i) {
            const Box both = box.united(parts.boxes[i]);
            const auto [w, h] = room(both);
            if (!done[i] && w <= limits.usual && h <= limits.usual) box = both;
        }
        const auto [w, h] = room(box);
        const double scale = std::max(1.0, static_cast<double>(std::max(w, h)) / limits.most);
        const Side x = place(box.left, box.right, width, scale, limits);
        const Side y = place(box.top, box.bottom, height, scale, limits);
        Tile tile{.window = {x.begin, y.begin, x.end, y.end},
                  .width = x.drawn,
                  .height = y.drawn,
                  .fills = empty_mask(x.end - x.begin, y.end - y.begin)};
        for (size_t i = first; i < parts.boxes.size(); ++i) {
            const Box& own = parts.boxes[i];
            if (done[i] || !tile.window.contains(own)) continue;
            done[i] = true;
            for (int v = own.top; v < own.bottom; ++v)
                for (int u = own.left; u < own.right; ++u)
                    if (parts.part[static_cast<size_t>(v) * static_cast<size_t>(width) +
                                   static_cast<size_t>(u)] == static_cast<int32_t>(i))
                        tile.fills.at(u - x.begin, v - y.begin) = 1;
        }
        tiles.push_back(std::move(tile));
    }
    return tiles;
}

Image crop(const Image& image, const Box& window) {
    Image result{.width = window.width(), .height = window.height(), .rgb = {}};
    result.rgb.reserve(size_t{3} * static_cast<size_t>(result.width) *
                       static_cast<size_t>(result.height));
    for (int y = window.top; y < window.bottom; ++y)
        for (int x = window.left; x < window.right; ++x) {
            const size_t at =
                static_cast<size_t>(reflected(y, image.height)) * static_cast<size_t>(image.width) +
                static_cast<size_t>(reflected(x, image.width));
            result.rgb.insert(result.rgb.end(), image.rgb.begin() + static_cast<long>(3 * at),
                              image.rgb.begin() + static_cast<long>(3 * at + 3));
        }
    return result;
}

Mask crop(const Mask& mask, const Box& window) {
    Mask result = empty_mask(window.width(), window.height());
    for (int y = 0; y < result.height; ++y)
        for (int x = 0; x < result.width; ++x)
            result.at(x, y) = mask.at(reflected(x + window.left, mask.width),
                                      reflected(y + window.top, mask.height));
    return result;
}

Mask coarsen(const Mask& mask, int width, int height, int cell) {
    Mask result = empty_mask(width / cell, height / cell);
    // The cells that a pixel of the mask, resized, lies in.
    const auto cells = [cell](int at, int from, int to, int count) {
        const double scale = static_cast<double>(to) / from;
        const auto first = static_cast<int>(std::floor(at * scale / cell));
        const auto last = static_cast<int>(std::ceil((at + 1) * scale / cell)) - 1;
        return std::pair(std::min(first, count - 1), std::min(std::max(first, last), count - 1));
    };
    for (int y = 0; y < mask.height; ++y)
        for (int x = 0; x < mask.width; ++x) {
            if (!mask.at(x, y)) continue;
            const auto [top, bottom] = cells(y, mask.height, height, result.height);
            const auto [left, right] = cells(x, mask.width, width, result.width);
            for (int v = top; v <= bottom; ++v)
                for (int u = left; u <= right; ++u) result.at(u, v) = 1;
        }
    return result;
}

}  // namespace fovea
