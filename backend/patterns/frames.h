#pragma once

#include <string>

#include "backend/patterns/pattern.h"

/// Frames of a clip as keys, by lists of indices (FateZero, arXiv 2303.09535, whose lists hold
/// numbers relative to a frame and names of fixed ones).
namespace fovea {

/// Besides its own frame a query sees those that are named, whole.
struct FramesOptions {
    bool first = false, middle = false, last = false;  ///< of the clip; middle: frames / 2
    bool previous = false, next = false;               ///< of its own; where there is one
};

class Frames {
  public:
    /// grid: (frames, …)
    Frames(Grid grid, const FramesOptions& options);

    bool keeps(uint32_t q, uint32_t k) const { return sees(q / each_, k / each_); }
    Grid grid() const { return grid_; }
    std::string key() const { return key_; }
    Cover cover(TokenRange queries, TokenRange keys) const;

  private:
    bool sees(uint32_t frame, uint32_t other) const;

    Grid grid_;
    FramesOptions options_;
    uint32_t frames_, each_;  ///< tokens of a frame
    std::string key_;
};

inline Frames frames(Grid grid, const FramesOptions& options) {
    return {std::move(grid), options};
}

/// Names apart by `separator`, as in "first,previous"; "none": its own frame alone. Throws Error
/// that lists them.
FramesOptions parse_frames(const std::string& text, char separator);

}  // namespace fovea
