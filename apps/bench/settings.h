#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vision/methods/calibration.h"
#include "vision/methods/method.h"

namespace fovea::apps::bench {

/// A method set to compute a share of all pairs.
struct MethodSetting {
    std::string name;
    double density;  ///< asked for
    std::function<std::unique_ptr<AttentionMethod>()> make;
};

/// radial, neighborhood, reordered, rectified and Re-ttention at `density` or the next below that
/// their parameters allow, on a video grid. Re-ttention's share is that of the steps between its
/// dense ones, its pattern the window along all frames that its authors use.
std::vector<MethodSetting> method_settings(const std::array<uint32_t, 3>& grid, double density,
                                           const Calibrator& calibrator);

/// The window of the largest share up to `density` that has much the same share of each axis; the
/// first axis whole where `all_frames`.
std::vector<uint32_t> window_at(const std::array<uint32_t, 3>& grid, double density,
                                bool all_frames);

}  // namespace fovea::apps::bench
