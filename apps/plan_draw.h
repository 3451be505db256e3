#pragma once

#include "backend/patterns/pattern.h"
#include "vision/image.h"

namespace fovea::apps {

/// Left the block map (queries down, keys across, in the order of the list): dark what full blocks
/// see, orange what partial ones see, pale what their masks hide; elements where there are few,
/// else blocks. Right what one query (red) sees of the grid, slices of a 3-D grid side by side, any
/// tokens behind the grid below it. Either half is about `size` pixels, more where elements need
/// it.
Image draw_plan(const Pattern& pattern, const BlockList& list, const Grid& grid, uint32_t query,
                int size);

}  // namespace fovea::apps
