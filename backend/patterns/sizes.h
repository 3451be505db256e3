#pragma once

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <span>

#include "backend/error.h"

namespace fovea {

/// Of a pattern with text and padding: far above what fits a device, far below what wraps 32 bits.
constexpr uint64_t kMostTokens = 1 << 24;

constexpr uint32_t div_up(uint32_t a, uint32_t b) {
    return a / b + (a % b != 0);
}

/// Tokens of a grid and beside it; throws Error unless they are 1 to kMostTokens.
inline uint32_t checked_tokens(const char* pattern, std::span<const uint32_t> grid,
                               uint64_t beside = 0) {
    uint64_t tokens = 1;  // three axes of 32 bits do not fit 64
    for (const uint32_t extent : grid) tokens = std::min(tokens * extent, kMostTokens + 1);
    require(tokens >= 1 && tokens <= kMostTokens && beside <= kMostTokens - tokens,
            "[{}] 1 to {} tokens expected, found a grid of {} and {} tokens beside it", pattern,
            kMostTokens, fmt::join(grid, "x"), beside);
    return static_cast<uint32_t>(tokens + beside);
}

}  // namespace fovea
