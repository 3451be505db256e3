#include "apps/lens_sheet.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "apps/label.h"

namespace fovea::apps {
namespace {

constexpr Color kInk{0.15f, 0.16f, 0.18f};
constexpr int kGap = 8, kLarge = 192, kSmall = 112;  // a cell's longer side: few maps, several rows

// Dark violet over orange to light yellow: lightness rises all the way.
Color heat_color(float value) {
    constexpr std::array<Color, 4> kStops{
        {{0.05f, 0.03f, 0.20f}, {0.48f, 0.10f, 0.43f}, {0.93f, 0.42f, 0.20f}, {1, 0.96f, 0.64f}}};
    const float at = std::clamp(value, 0.0f, 1.0f) * (kStops.size() - 1);
    const auto below = std::min(static_cast<size_t>(at), kStops.size() - 2);
    const float part = at - static_cast<float>(below);
    Color color;
    for (size_t i = 0; i < 3; ++i)
        color[i] = kStops[below][i] + part * (kStops[below + 1][i] - kStops[below][i]);
    return color;
}

void draw_ring(Image& image, float x, float y) {
    constexpr float kRadius = 6;
    for (int py = 0; py < image.height; ++py)
        for (int px = 0; px < image.width; ++px) {
            const float distance =
                std::hypot(static_cast<float>(px) + 0.5f - x, static_cast<float>(py) + 0.5f - y);
            const float off = std::abs(distance - kRadius);
            if (off > 1.8f) continue;
            const float value = off < 0.9f ? 1.0f : 0.0f;  // white with a dark rim
            std::fill_n(image.rgb.begin() + 3 * (int64_t{py} * image.width + px), 3, value);
        }
}

Image draw_heat(const Image& picture, const std::vector<float>& heat, int rows, int columns) {
    const auto [least, most] = std::minmax_element(heat.begin(), heat.end());
    const float low = *least, range = std::max(*most - low, 1e-12f);
    Image map{columns, rows, {}};
    for (const float value : heat) map.rgb.insert(map.rgb.end(), 3, (value - low) / range);
    map = resize(map, picture.width, picture.height);
    Image image = picture;
    for (size_t pixel = 0; pixel < image.rgb.size(); pixel += 3) {
        float* rgb = &image.rgb[pixel];
        const float grey = 0.3f * rgb[0] + 0.59f * rgb[1] + 0.11f * rgb[2];
        const float value = map.rgb[pixel], opacity = 0.45f + 0.4f * value;
        const Color color = heat_color(value);
        for (size_t i = 0; i < 3; ++i) rgb[i] = (1 - opacity) * 0.8f * grey + opacity * color[i];
    }
    const auto peak = static_cast<int>(most - heat.begin());
    draw_ring(image,
              (static_cast<float>(peak % columns) + 0.5f) * static_cast<float>(image.width) /
                  static_cast<float>(columns),
              (static_cast<float>(peak / columns) + 0.5f) * static_cast<float>(image.height) /
                  static_cast<float>(rows));
    return image;
}

}  // namespace

Image draw_heat_sheet(const Image& picture, const std::vector<HeatRow>& rows, int grid_rows,
                      int grid_columns) {
    size_t columns = 1, letters = 0;
    for (const HeatRow& row : rows) {
        columns = std::max(columns, row.cells.size());
        letters = std::max(letters, row.label.size());
    }
    const int side = letters > 0 ? kSmall : kLarge, scale = letters > 0 ? 1 : 2;
    const int longer = std::max(picture.width, picture.height);
    const Image small = resize(picture, std::max(1, picture.width * side / longer),
                               std::max(1, picture.height * side / longer));
    const int label = letters > 0 ? static_cast<int>(letters) * kGlyphWidth * scale + kGap : 0;
    const int across = small.width + kGap;
    const int down = small.height + kGlyphHeight * scale + kGap + 2;
    Image sheet = paper(kGap + across + label + across * static_cast<int>(columns),
                        kGap + down * static_cast<int>(rows.size()));
    paste(sheet, small, kGap, kGap);
    const int right = kGap + across + label;
    for (size_t r = 0; r < rows.size(); ++r) {
        const int y = kGap + down * static_cast<int>(r);
        draw_label(sheet, kGap + across, y + small.height / 2 - kGlyphHeight * scale / 2,
                   rows[r].label, scale, kInk);
        for (size_t c = 0; c < rows[r].cells.size(); ++c) {
            const int x = right + across * static_cast<int>(c);
            paste(sheet, draw_heat(small, rows[r].cells[c].heat, grid_rows, grid_columns), x, y);
            // What does not fit under the cell is cut, not written over the next one's.
            const auto fits = static_cast<size_t>(across / (kGlyphWidth * scale));
            draw_label(sheet, x, y + small.height + 3, rows[r].cells[c].label.substr(0, fits),
                       scale, kInk);
        }
    }
    return sheet;
}

}  // namespace fovea::apps
