#pragma once

#include <array>

#include "backend/tensor.h"

namespace fovea {

struct BlurOptions {
    std::array<int64_t, 3> grid{};  ///< frames, rows, columns of tokens; frames are not mixed
    float sigma = 0;                ///< in tokens, above 0; infinite: the mean of a frame
    Tensor heads;                   ///< (heads) f32: those with 0 pass unchanged
};

/// Gaussian filter over the rows and columns of tokens, (batch, tokens, heads, head_dim); where the
/// grid ends, weights are of what is there. Of queries: smoothed energy guidance
/// (arXiv 2408.00760).
Tensor blur_tokens(vk::Stream& stream, const Tensor& x, const BlurOptions& options);

}  // namespace fovea
