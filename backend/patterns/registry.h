#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backend/patterns/pattern.h"

namespace fovea {

/// A pattern from its command-line spec over a grid: "dense", or
/// "neighborhood:7x7[:stride=2x2][:dilation=1x2][:causal=0x1]" with one number an axis (or one for
/// all axes; a window of 0 is the whole axis). Throws Error that says what was found and lists what
/// there is.
Pattern parse_pattern(std::string_view spec, const Grid& grid);

/// One line of help a pattern: its spec and what it means.
std::vector<std::string> pattern_help();

}  // namespace fovea
