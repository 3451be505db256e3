#pragma once

#include "backend/tensor.h"

namespace fovea {

/// Rows of table (v, w) by ids (n), i32 → (n, w). An id outside of the table gives a row of NaN.
Tensor embedding(vk::Stream& stream, const Tensor& ids, const Tensor& table);

}  // namespace fovea
