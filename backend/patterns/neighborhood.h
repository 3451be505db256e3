#pragma once

#include <array>

#include "backend/patterns/boxes.h"
#include "backend/patterns/pattern.h"

/// Neighborhood attention: every query sees a window of keys around it, per axis of a 1-D to 3-D
/// grid. The rules are NATTEN's (github.com/SHI-Labs/NATTEN, na_utils.cuh and mask.hpp):
/// - windows slide back inside at the borders, so that every query sees exactly `window` keys of
///   an axis; there is no padding; even windows reach one further to the left;
/// - stride s: queries in runs of s share the window of the run's middle (causal: last) query, so
///   s = window is blocked attention;
/// - dilation δ: the axis falls into δ interleaved groups, the rule holds inside each;
/// - causal: the window ends at the query itself and is cut, not moved, at the start;
/// - window = axis length: the whole axis.
namespace fovea {

/// Per axis; empty means 1, 1 and false everywhere.
struct NeighborhoodOptions {
    std::vector<uint32_t> window;
    std::vector<uint32_t> stride;
    std::vector<uint32_t> dilation;
    std::vector<bool> causal;
};

struct NeighborhoodAxis {
    /// The keys first, first + step, … of the axis.
    struct Keys {
        uint32_t first, step, count;
        bool contains(uint32_t k) const {
            return k >= first && (k - first) % step == 0 && (k - first) / step < count;
        }
    };

    uint32_t length = 1, window = 1, stride = 1, dilation = 1;
    bool causal = false;

    Keys keys_of(uint32_t query) const;
    AxisRule rule() const;
    TokenRange keys_at(uint32_t position) const;  ///< rule().keys[position]
    /// Whether stretches of q_tile queries and k_tile keys (in the rule's order) are seen as a
    /// whole or not at all, so that no block needs a mask. Exact; Generalized Neighborhood
    /// Attention (arXiv 2504.16922) states a sufficient condition: window = length, or q_tile
    /// divides the stride, k_tile the window, and window starts are multiples of k_tile.
    bool perfectly_block_sparse(uint32_t q_tile, uint32_t k_tile) const;
};

class Neighborhood {
  public:
    Neighborhood(Grid grid, const NeighborhoodOptions& options);

    bool keeps(uint32_t q, uint32_t k) const;
    Grid grid() const { return grid_; }
    std::string key() const { return key_; }
    BlockList blocks(TileShape tile) const;  ///< in the best boxes
    BlockList blocks(TileShape tile, const Boxes& boxes) const;
    /// Every pair of boxes for these tiles, the best first.
    std::vector<BoxCost> box_costs(TileShape tile) const;
    /// Three; grids of fewer axes are padded in front with axes of length 1.
    const std::array<NeighborhoodAxis, 3>& axes() const { return axes_; }

  private:
    AxisRules rules() const { return {axes_[0].rule(), axes_[1].rule(), axes_[2].rule()}; }

    Grid grid_;
    std::string key_;
    std::array<NeighborhoodAxis, 3> axes_;
};

inline Neighborhood neighborhood(Grid grid, const NeighborhoodOptions& options) {
    return {std::move(grid), options};
}

}  // namespace fovea
