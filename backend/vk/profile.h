#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "backend/vk/stream.h"

namespace fovea::vk {

/// A table by op: calls, total and mean milliseconds, share. Largest first.
std::string profile_table(std::span<const ProfileEvent> events);

/// Chrome trace (chrome://tracing, Perfetto) of the events; written beside and renamed.
void write_chrome_trace(const std::filesystem::path& path, std::span<const ProfileEvent> events);

}  // namespace fovea::vk
