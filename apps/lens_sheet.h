#pragma once

#include <string>
#include <vector>

#include "vision/image.h"

namespace fovea::apps {

/// One heat map of the sheet.
struct HeatCell {
    std::string label;        ///< under it
    std::vector<float> heat;  ///< (rows · columns) of the token grid; its least is dark, its most
                              ///< bright, and a ring is drawn there
};

struct HeatRow {
    std::string label;  ///< at its left; all empty: no room for them, and larger maps
    std::vector<HeatCell> cells;
};

/// The picture, then rows of heat maps over the picture in grey, with labels.
Image draw_heat_sheet(const Image& picture, const std::vector<HeatRow>& rows, int grid_rows,
                      int grid_columns);

}  // namespace fovea::apps
