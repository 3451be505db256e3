#pragma once

#include "backend/patterns/boxes.h"
#include "backend/patterns/pattern.h"

/// A disc around each query of a 2-D grid (CLEAR, github.com/Huage001/CLEAR): an image query sees
/// the image keys at a squared distance below radius², and all text; text queries see everything.
namespace fovea {

class Disc {
  public:
    /// Tokens: the grid {rows, columns}, then the text. Throws Error.
    Disc(Grid grid, double radius, uint32_t text_tokens);

    bool keeps(uint32_t q, uint32_t k) const {
        if (q >= image_ || k >= image_) return true;
        const double dy = double{1} * (q / columns_) - k / columns_;
        const double dx = double{1} * (q % columns_) - k % columns_;
        return dy * dy + dx * dx < radius_ * radius_;
    }
    Grid grid() const;
    std::string key() const;
    BlockList blocks(TileShape tile) const;  ///< in the best boxes; text has tiles of its own
    BlockList blocks(TileShape tile, const Boxes& boxes) const;
    /// Every pair of boxes for these tiles, the best first; blocks of text count as full.
    std::vector<BoxCost> box_costs(TileShape tile) const;

  private:
    struct Side;
    struct Slots;

    uint32_t rows_, columns_, image_, text_;
    double radius_;
};

inline Disc disc(Grid grid, double radius, uint32_t text_tokens = 0) {
    return {std::move(grid), radius, text_tokens};
}

}  // namespace fovea
