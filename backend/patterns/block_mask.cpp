#include "backend/patterns/block_mask.h"

#include <fmt/format.h>

#include <numeric>

namespace fovea {

double BlockMask::density() const {
    const auto sum = std::accumulate(visible.begin(), visible.end(), uint64_t{0});
    return static_cast<double>(sum) / static_cast<double>(visible.size());
}

Cover BlockMask::cover(TokenRange queries, TokenRange keys) const {
    bool any = false, all = true;
    for (uint32_t r = queries.begin / block.q; r <= (queries.end - 1) / block.q; ++r)
        for (uint32_t c = keys.begin / block.k; c <= (keys.end - 1) / block.k; ++c)
            (at(r, c) ? any : all) = at(r, c);
    return !any ? Cover::none : all ? Cover::full : Cover::partial;
}

std::string digest(const BlockMask& mask) {
    uint64_t a = 14695981039346656037ull, b = 0x9e3779b97f4a7c15ull;  // FNV-1a and a second mixer
    const auto add = [&](uint64_t value) {
        a = (a ^ value) * 1099511628211ull;
        b = (b + value) * 0xbf58476d1ce4e5b9ull;
        b ^= b >> 29;
    };
    for (const uint32_t value : {mask.block.q, mask.block.k, mask.rows, mask.cols}) add(value);
    for (const uint8_t value : mask.visible) add(value != 0);
    return fmt::format("{:016x}{:016x}", a, b);
}

}  // namespace fovea
