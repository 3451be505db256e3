#pragma once

#include <cstdint>
#include <span>

namespace fovea::vk {

/// One compiled module, embedded at build time. `name` is the line's name in
/// shaders/CMakeLists.txt.
struct Shader {
    const char* name;
    std::span<const uint32_t> code;  ///< SPIR-V words
};

}  // namespace fovea::vk
