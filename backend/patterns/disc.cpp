#include "backend/patterns/disc.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "backend/error.h"

namespace fovea {

Disc::Disc(Grid grid, double radius, uint32_t text_tokens) : text_(text_tokens), radius_(radius) {
    require(grid.shape.size() == 2 && grid.tokens() >= 1,
            "[disc] a grid {{rows, columns}} expected, found {}", fmt::join(grid.shape, "x"));
    require(radius > 0 && std::isfinite(radius), "[disc] radius must be above 0, found {}", radius);
    rows_ = grid.shape[0];
    columns_ = grid.shape[1];
    image_ = rows_ * columns_;
}

Grid Disc::grid() const {
    return text_ == 0 ? Grid{.shape = {rows_, columns_}} : Grid{.shape = {image_ + text_}};
}

std::string Disc::key() const {
    return fmt::format("disc:{}:{}x{}:text={}", radius_, rows_, columns_, text_);
}

Cover Disc::cover(TokenRange queries, TokenRange keys) const {
    if (queries.begin >= image_ || keys.begin >= image_) return Cover::full;
    if (queries.end > image_ || keys.end > image_) return Cover::partial;
    // Rows of the grid alone decide that nothing is seen.
    const uint32_t q0 = queries.begin / columns_, q1 = (queries.end - 1) / columns_;
    const uint32_t k0 = keys.begin / columns_, k1 = (keys.end - 1) / columns_;
    const double gap = k0 > q1 ? k0 - q1 : q0 > k1 ? q0 - k1 : 0;
    return gap >= radius_ ? Cover::none : Cover::partial;
}

}  // namespace fovea
