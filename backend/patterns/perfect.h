#pragma once

#include <vector>

#include "backend/patterns/neighborhood.h"

namespace fovea {

/// A neighborhood whose blocks are all full in these boxes.
struct PerfectSetting {
    NeighborhoodOptions options;
    BoxCost cost;
    double kept_share = 0;  ///< of all pairs
    double distance = 0;    ///< from what was asked: changes of windows, and strides a little
};

/// Windows and strides near the asked ones that need no masks in tiles of this shape, the nearest
/// first; dilation and causality stay. Windows change by a few tiles at most. The asked setting
/// comes first, with distance 0, if it is perfect itself.
std::vector<PerfectSetting> perfect_settings(const Neighborhood& asked, TileShape tile,
                                             size_t most = 6);

}  // namespace fovea
