#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

/// Whole files in and out. Everything the program writes goes through write_file, so that a full
/// disk, an error or an interrupt never leaves half a picture under the name that was asked for.
namespace fovea {

/// The bytes of a regular file. Throws Error naming the path when it is missing, no regular file or
/// above max_bytes.
std::vector<std::byte> read_file(const std::filesystem::path& path, size_t max_bytes);

/// Writes beside the destination under a temporary name (".fovea-<pid>-<n>.part"), syncs, then
/// renames: readers see the old file or the whole new one. Throws Error and removes the temporary
/// file when any step fails.
void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes);

/// What the bytes look like, for error messages: "a WebP picture", "a PDF document", "text", "an
/// empty file" …
std::string file_kind(std::span<const std::byte> bytes);

}  // namespace fovea
