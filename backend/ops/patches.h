#pragma once

#include "backend/tensor.h"

namespace fovea {

/// A picture as tokens: (b, h, w, c) → (b, h/p · w/p, c · p · p), tokens in row-major order,
/// element c · p · p + dy · p + dx of each.
Tensor patchify(vk::Stream& stream, const Tensor& x, int p);

/// The inverse: tokens of a picture of h × w pixels back to (b, h, w, c).
Tensor unpatchify(vk::Stream& stream, const Tensor& x, int64_t h, int64_t w, int p);

}  // namespace fovea
