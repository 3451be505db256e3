#include "apps/plan_draw.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "apps/label.h"

namespace fovea::apps {
namespace {

constexpr Color kPaper{1, 1, 1}, kEmpty{0.93f, 0.93f, 0.94f}, kFull{0.13f, 0.31f, 0.52f},
    kPartial{0.93f, 0.55f, 0.16f}, kHidden{0.98f, 0.88f, 0.74f}, kQuery{0.82f, 0.13f, 0.16f};
constexpr uint32_t kMostElements = 1024;  // a side; more are drawn as blocks

void fill(Image& image, int x0, int y0, int width, int height, const Color& color) {
    for (int y = y0; y < y0 + height; ++y)
        for (int x = x0; x < x0 + width; ++x)
            std::copy(color.begin(), color.end(),
                      image.rgb.begin() + 3 * (int64_t{y} * image.width + x));
}

/// Queries × keys, each a square of `cell` pixels.
Image draw_elements(const BlockList& list, int cell) {
    const int tq = static_cast<int>(list.tile.q), tk = static_cast<int>(list.tile.k);
    const auto rows = static_cast<int>(list.query_tiles()) * tq;
    const auto columns = static_cast<int>(list.key_tiles() + list.extra_tiles()) * tk;
    Image image = paper(columns * cell, rows * cell);
    fill(image, 0, 0, image.width, image.height, kEmpty);
    for (uint32_t t = 0; t < list.query_tiles(); ++t)
        for (const auto& block : list.row(t))
            for (int q = 0; q < tq; ++q)
                for (int k = 0; k < tk; ++k) {
                    const bool seen =
                        list.bit(block, static_cast<uint32_t>(q), static_cast<uint32_t>(k));
                    const Color& color = block.mask == BlockList::kFull ? kFull
                                         : seen                         ? kPartial
                                                                        : kHidden;
                    fill(image, (static_cast<int>(block.key_tile) * tk + k) * cell,
                         (static_cast<int>(t) * tq + q) * cell, cell, cell, color);
                }
    for (int x = tk * cell; x < image.width; x += tk * cell)
        fill(image, x, 0, 1, image.height, kPaper);
    for (int y = tq * cell; y < image.height; y += tq * cell)
        fill(image, 0, y, image.width, 1, kPaper);
    return image;
}

/// The pixels of each of `count` blocks of an axis drawn `pixels` long.
struct Places {
    int count, pixels;

    int begin(int i) const { return static_cast<int>(int64_t{i} * pixels / count); }
    int end(int i) const { return std::max(begin(i) + 1, begin(i + 1)); }
};

/// Blocks in the proportions of their tokens; where several share a pixel it has their mean color.
/// Straight at this size: a million tokens have 10^8 blocks.
Image draw_blocks(const BlockList& list, int size) {
    const auto rows = static_cast<int>(list.query_tiles());
    const auto columns = static_cast<int>(list.key_tiles() + list.extra_tiles());
    const double side = std::max(double{1} * columns * list.tile.k, double{1} * rows * list.tile.q);
    const auto places = [&](int count, uint32_t tile) {
        const int n =
            std::max(1, static_cast<int>(std::lround(size * (count * double{1} * tile) / side)));
        return Places{count, n < count ? n : n / count * count};  // whole pixels a block
    };
    const Places x = places(columns, list.tile.k), y = places(rows, list.tile.q);
    std::vector<int> across(static_cast<size_t>(x.pixels)), down(static_cast<size_t>(y.pixels));
    const auto count = [](const Places& p, std::vector<int>& blocks) {
        for (int i = 0; i < p.count; ++i)
            for (int at = p.begin(i); at < p.end(i); ++at) ++blocks[static_cast<size_t>(at)];
    };
    count(x, across);
    count(y, down);
    Image image = paper(x.pixels, y.pixels);
    fill(image, 0, 0, image.width, image.height, kEmpty);
    for (int row = 0; row < rows; ++row)
        for (const auto& block : list.row(static_cast<uint32_t>(row))) {
            const Color& color = block.mask == BlockList::kFull ? kFull : kPartial;
            const int column = static_cast<int>(block.key_tile);
            for (int py = y.begin(row); py < y.end(row); ++py)
                for (int px = x.begin(column); px < x.end(column); ++px) {
                    float* pixel = &image.rgb[size_t{3} * (static_cast<size_t>(py) *
                                                               static_cast<size_t>(image.width) +
                                                           static_cast<size_t>(px))];
                    const auto blocks = static_cast<float>(across[static_cast<size_t>(px)] *
                                                           down[static_cast<size_t>(py)]);
                    for (size_t i = 0; i < 3; ++i) pixel[i] += (color[i] - kEmpty[i]) / blocks;
                }
        }
    return image;
}

Image draw_map(const BlockList& list, int size) {
    const uint32_t longest = std::max(list.query_tiles() * list.tile.q,
                                      (list.key_tiles() + list.extra_tiles()) * list.tile.k);
    if (longest > kMostElements) return draw_blocks(list, size);
    return draw_elements(list, std::max(1, size / static_cast<int>(longest)));
}

Image draw_query(const Pattern& pattern, const Grid& grid, uint32_t tokens, uint32_t query,
                 int size) {
    std::array<int, 3> n{1, 1, 1};
    for (size_t i = 0; i < grid.shape.size(); ++i)
        n[3 - grid.shape.size() + i] = static_cast<int>(grid.shape[i]);
    int& slices = n[0];
    int &rows = n[1], &columns = n[2];
    if (int64_t{columns} * rows * slices == std::max({columns, rows, slices}) &&
        grid.tokens() > 64) {  // a line of tokens wraps
        columns *= rows * slices;
        slices = 1;
        const int wrapped = std::min(128, static_cast<int>(std::ceil(std::sqrt(columns))));
        rows = (columns + wrapped - 1) / wrapped;
        columns = wrapped;
    }
    const auto in_grid = static_cast<uint32_t>(grid.tokens());
    const int behind = static_cast<int>(tokens - in_grid);
    const int across = static_cast<int>(std::ceil(std::sqrt(1.0 * slices * rows / columns)));
    const int down = (slices + across - 1) / across;
    const int width = across * (columns + 1) - 1;  // in cells, one between slices
    const int below = behind > 0 ? 1 + (behind + width - 1) / width : 0;
    const int height = down * (rows + 1) - 1 + below;
    const int cell = std::clamp(size / std::max(width, height), 1, 40), gap = cell >= 4 ? 1 : 0;

    Image image = paper(width * cell, height * cell);
    for (uint32_t token = 0; token < tokens; ++token) {
        int x, y;
        if (token < in_grid) {
            const int t = static_cast<int>(token), slice = t / columns / rows;
            x = slice % across * (columns + 1) + t % columns;
            y = slice / across * (rows + 1) + t / columns % rows;
        } else {
            const int t = static_cast<int>(token - in_grid);
            x = t % width;
            y = height - below + 1 + t / width;
        }
        const Color& color = token == query ? kQuery : pattern.keeps(query, token) ? kFull : kEmpty;
        fill(image, x * cell, y * cell, cell - gap, cell - gap, color);
    }
    return image;
}

}  // namespace

Image draw_plan(const Pattern& pattern, const BlockList& list, const Grid& grid, uint32_t query,
                int size) {
    const Image map = draw_map(list, size);
    const Grid line{.shape = {list.kv_len}};  // where there is no grid
    const Image seen =
        draw_query(pattern, grid.shape.empty() ? line : grid, list.kv_len, query, size);
    constexpr int kGap = 24, kBorder = 8;
    Image image = paper(map.width + seen.width + kGap + 2 * kBorder,
                        std::max(map.height, seen.height) + 2 * kBorder);
    paste(image, map, kBorder, (image.height - map.height) / 2);
    paste(image, seen, kBorder + map.width + kGap, (image.height - seen.height) / 2);
    return image;
}

}  // namespace fovea::apps
