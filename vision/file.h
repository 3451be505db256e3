#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/error.h"

/// Whole files in and out. Everything the program writes goes through write_file, so that a full
/// disk, an error or an interrupt never leaves half a picture under the name that was asked for.
namespace fovea {

/// A file that could not be written: a full disk, a folder without permission.
class WriteError : public Error {
  public:
    using Error::Error;
};

/// The bytes of a regular file. Throws Error naming the path when it is missing, no regular file or
/// above max_bytes.
std::vector<std::byte> read_file(const std::filesystem::path& path, size_t max_bytes);

/// Writes beside the destination under a temporary name (".fovea-<pid>-<n>.part"), syncs, then
/// renames: readers see the old file or the whole new one. When any step fails removes the
/// temporary file and throws WriteError, or Error where it is this name alone that cannot be taken:
/// a folder's, below a file, too long.
void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes);

/// Throws WriteError, as write_file() would, where no file of this name can be made: to be known
/// before long work.
void require_writable(const std::filesystem::path& path);

/// Gives a file its name, in place of another of that name, and syncs the name. Throws as
/// write_file().
void rename_file(const std::filesystem::path& from, const std::filesystem::path& to);

/// SHA-256 of a regular file as 64 hex digits. Throws Error.
std::string sha256_of_file(const std::filesystem::path& path);
std::string sha256(std::string_view bytes);

/// What the bytes look like, for error messages: "a WebP picture", "a PDF document", "text", "an
/// empty file" …
std::string file_kind(std::span<const std::byte> bytes);

}  // namespace fovea
