#pragma once

#include <cstdint>

namespace fovea {

/// gelu is the tanh approximation, elu_plus_one is x + 1 above 0 and exp(x) below. Values are those
/// of shaders/common/activation.glsl.
enum class Activation : uint32_t {
    none = 0,
    relu = 1,
    gelu = 2,
    silu = 3,
    sigmoid = 4,
    elu_plus_one = 5,
    exp = 6
};

}  // namespace fovea
