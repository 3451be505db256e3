#pragma once

#include <cstdint>

namespace fovea {

/// gelu is the tanh approximation. Values are those of shaders/common/activation.glsl.
enum class Activation : uint32_t { none = 0, relu = 1, gelu = 2, silu = 3 };

}  // namespace fovea
