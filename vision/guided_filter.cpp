#include "vision/guided_filter.h"

#include <algorithm>
#include <array>

#include "backend/error.h"
#include "vision/linear.h"

namespace fovea {
namespace {

using Plane = std::vector<double>;

// Mean over the square around each pixel, as much of it as lies in the picture.
Plane mean_around(const Plane& x, int width, int height, int radius) {
    const auto run = [&](const Plane& from, int count, int length, int step, int line) {
        Plane to(from.size());
        Plane sums(static_cast<size_t>(length) + 1);
        for (int n = 0; n < count; ++n) {
            const auto at = [&](int i) { return static_cast<size_t>(n * line + i * step); };
            for (int i = 0; i < length; ++i)
                sums[static_cast<size_t>(i) + 1] = sums[static_cast<size_t>(i)] + from[at(i)];
            for (int i = 0; i < length; ++i) {
                const int begin = std::max(0, i - radius), end = std::min(length, i + radius + 1);
                to[at(i)] = (sums[static_cast<size_t>(end)] - sums[static_cast<size_t>(begin)]) /
                            (end - begin);
            }
        }
        return to;
    };
    return run(run(x, height, width, 1, width), width, height, width, 1);
}

using Vector = std::array<double, 3>;

double dot(const Vector& a, const Vector& b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

Vector cross(const Vector& a, const Vector& b) {
    return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

// Of a symmetric positive matrix, by its rows.
Vector solve(const std::array<Vector, 3>& rows, const Vector& right) {
    const Vector a = cross(rows[1], rows[2]), b = cross(rows[2], rows[0]),
                 c = cross(rows[0], rows[1]);
    const double determinant = dot(rows[0], a);
    Vector x;
    for (size_t i = 0; i < 3; ++i)
        x[i] = (a[i] * right[0] + b[i] * right[1] + c[i] * right[2]) / determinant;
    return x;
}

}  // namespace

GuidedMap::GuidedMap(const Image& picture, const std::vector<float>& map, int radius, float epsilon)
    : width_(picture.width), height_(picture.height) {
    const size_t pixels = map.size();
    require(pixels * 3 == picture.rgb.size() && radius >= 0 && epsilon > 0,
            "[filter] {} values for a picture of {}x{}, radius {}, epsilon {} found", pixels,
            picture.width, picture.height, radius, epsilon);
    const auto mean = [&](auto value) {
        Plane plane(pixels);
        for (size_t i = 0; i < pixels; ++i) plane[i] = value(i);
        return mean_around(plane, picture.width, picture.height, radius);
    };
    const auto color = [&](size_t i, size_t c) -> double { return picture.rgb[3 * i + c]; };
    const Plane p = mean([&](size_t i) -> double { return map[i]; });
    std::array<Plane, 3> of_color, with_map;
    std::array<std::array<Plane, 3>, 3> squares;
    for (size_t c = 0; c < 3; ++c) {
        of_color[c] = mean([&](size_t i) { return color(i, c); });
        with_map[c] = mean([&](size_t i) { return color(i, c) * map[i]; });
        for (size_t d = c; d < 3; ++d)
            squares[c][d] = squares[d][c] =
                mean([&](size_t i) { return color(i, c) * color(i, d); });
    }
    for (auto& plane : line_) plane.resize(pixels);
    for (size_t i = 0; i < pixels; ++i) {
        std::array<Vector, 3> rows;
        Vector right;
        for (size_t c = 0; c < 3; ++c) {
            right[c] = with_map[c][i] - of_color[c][i] * p[i];
            for (size_t d = 0; d < 3; ++d)
                rows[c][d] = squares[c][d][i] - of_color[c][i] * of_color[d][i] +
                             (c == d ? double{epsilon} : 0.0);
        }
        const Vector slopes = solve(rows, right);
        line_[3][i] = p[i];
        for (size_t c = 0; c < 3; ++c) {
            line_[c][i] = slopes[c];
            line_[3][i] -= slopes[c] * of_color[c][i];
        }
    }
    for (auto& plane : line_) plane = mean_around(plane, picture.width, picture.height, radius);
}

std::vector<float> GuidedMap::draw(const Image& picture) const {
    const auto across = linear_places(picture.width, width_),
               down = linear_places(picture.height, height_);
    const auto width = static_cast<size_t>(width_);
    std::vector<float> result;
    result.reserve(picture.rgb.size() / 3);
    for (const LinearPlace& y : down)
        for (const LinearPlace& x : across) {
            double sum = sample(line_[3], width, x, y);
            for (size_t c = 0; c < 3; ++c)
                sum += sample(line_[c], width, x, y) * picture.rgb[3 * result.size() + c];
            result.push_back(static_cast<float>(sum));
        }
    return result;
}

std::vector<float> guided_filter(const Image& picture, const std::vector<float>& map, int radius,
                                 float epsilon) {
    return GuidedMap(picture, map, radius, epsilon).draw(picture);
}

}  // namespace fovea
