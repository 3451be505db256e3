#pragma once

#include <cstddef>
#include <filesystem>
#include <initializer_list>
#include <span>

/// Files that the next process may use and that may go at any time.
namespace fovea::vk {

/// $XDG_CACHE_HOME/fovea, else ~/.cache/fovea; empty where neither is set.
std::filesystem::path cache_folder();

/// Written beside and renamed, so that a reader sees all of the parts one behind the other or the
/// file that was there before. False where it could not be written.
bool write_cache_file(const std::filesystem::path& path,
                      std::initializer_list<std::span<const std::byte>> parts);

}  // namespace fovea::vk
