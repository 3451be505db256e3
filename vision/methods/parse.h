#pragma once

#include <memory>
#include <string>
#include <vector>

#include "vision/methods/cache.h"
#include "vision/methods/method.h"
#include "vision/models/dit.h"

/// Methods by name, as options of programs give them.
namespace fovea {

struct MethodRequest {
    /// A pattern of the registry over (frames, rows, columns) as in pattern_help(), or one of
    /// method_help(): "rectified:keep=0.3", "rettention:every=5:of=neighborhood:0x5x5",
    /// "reordered".
    std::string pattern = "dense";
    int dense_steps = 0;            ///< the first steps stay dense
    std::vector<int> dense_layers;  ///< and these layers in every step
    std::string calibration;        ///< file of `fovea calibrate`, for "reordered"
    std::string cache;              ///< "", or one of cache_help()
};

/// The methods of one clip. An absent one does nothing.
struct ClipMethod {
    std::unique_ptr<AttentionMethod> attention;
    std::unique_ptr<FeatureCache> cache;

    /// Of a step: made anew before each evaluation of the model, valid while this lives.
    DitHooks hooks(int step, int steps);
};

/// Throws Error where names, numbers or the calibration do not fit the model or the grid.
ClipMethod make_method(const MethodRequest& request, const DitConfig& model, const DitGrid& grid);

/// A line of help each.
std::vector<std::string> method_help();
std::vector<std::string> cache_help();

/// Block of a selection or calibration: 16, 32 or 64 tokens, so that there are 64 blocks or more
/// where there are 1024 tokens or more.
uint32_t block_for(uint64_t tokens);

}  // namespace fovea
