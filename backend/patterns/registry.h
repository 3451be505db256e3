#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/patterns/neighborhood.h"
#include "backend/patterns/pattern.h"

namespace fovea {

/// A pattern from its command-line spec over a grid, as pattern_help() lists them: "dense",
/// "neighborhood:7x7:stride=2x2", "disc:8:text=77" … Numbers per axis may be one for all axes; text
/// tokens come on top of the grid's. Throws Error that says what was found and lists what there is.
Pattern parse_pattern(std::string_view spec, const Grid& grid);

/// The same where the spec names a neighborhood, for what only that pattern can tell; else nothing.
std::optional<Neighborhood> parse_neighborhood(std::string_view spec, const Grid& grid);

/// The first word of every spec.
std::vector<std::string> pattern_names();

/// One line of help a pattern: its spec and what it means.
std::vector<std::string> pattern_help();

}  // namespace fovea
