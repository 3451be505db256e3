#pragma once

#include "apps/bench/row.h"

namespace fovea::apps::bench {

/// Files of `fovea bench --json` and of peers as one table. Throws Error that names the file and
/// what is wrong with it.
Json read_results(const std::string& path);

/// One entry a case of (op, pattern, shape, dtype): the engine's fastest right path, each peer's
/// time and how many times as long it takes as the engine (above 1: the engine is faster), and for
/// sparse cases the peers' dense times of that shape likewise. Devices and peaks on top.
Json merge_results(const std::vector<Json>& documents);

std::string markdown_of(const Json& merged);  ///< a table an op
std::string plot_of(const Json& merged);      ///< SVG: bars of every case, the engine's and peers'

}  // namespace fovea::apps::bench
