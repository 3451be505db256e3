#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "vision/weights.h"

/// The header of a safetensors file, read without trust. JSON goes through a streaming reader that
/// knows the three levels the format has, so nesting, unknown fields and duplicate names stop it at
/// once and memory stays proportional to the tensors described. Then the byte ranges must tile the
/// data: no overlap, no hole, nothing left over, as the format demands.
namespace fovea {

struct SafetensorsHeader {
    std::map<std::string, TensorInfo, std::less<>> tensors;  // bytes point into the file
    std::map<std::string, std::string> metadata;
};

/// `name` stands for the file in messages. Throws Error.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file,
                                           const std::string& name);

}  // namespace fovea
