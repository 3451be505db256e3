#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vision/methods/calibration.h"
#include "vision/methods/method.h"

namespace fovea::apps::bench {

/// A share of all pairs over all steps, of which the first are dense.
struct MethodBudget {
    double density = 1;
    int steps = 1, dense_steps = 0;

    /// For each of the other steps.
    double sparse() const;
};

/// A method set to compute a share of all pairs.
struct MethodSetting {
    std::string name, note;
    double density;  ///< asked for
    std::function<std::unique_ptr<AttentionMethod>()> make;
};

/// radial, neighborhood, reordered, rectified and Re-ttention, each at the budget or the next below
/// it that its parameters allow, on a video grid; what the budget does not allow is left out.
/// Re-ttention's pattern is the window along all frames that its authors use, and once more the
/// calibrated masks; dense again every so many steps that a third of the budget goes there. Without
/// a calibrator there are no masks.
std::vector<MethodSetting> method_settings(const std::array<uint32_t, 3>& grid,
                                           const MethodBudget& budget,
                                           const Calibrator* calibrator);

/// The window of the largest share up to `density` that has much the same share of each axis; the
/// first axis whole where `all_frames`.
std::vector<uint32_t> window_at(const std::array<uint32_t, 3>& grid, double density,
                                bool all_frames);

}  // namespace fovea::apps::bench
