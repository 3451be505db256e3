#include "backend/vk/cache_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace fovea::vk {

namespace fs = std::filesystem;

fs::path cache_folder() {
    if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg && *xdg)
        return fs::path(xdg) / "fovea";
    if (const char* home = std::getenv("HOME"); home && *home)
        return fs::path(home) / ".cache" / "fovea";
    return {};
}

bool write_cache_file(const fs::path& path,
                      std::initializer_list<std::span<const std::byte>> parts) {
    std::error_code error;
    fs::create_directories(path.parent_path(), error);
    const std::string beside = fmt::format("{}.{}", path.string(), ::getpid());
    {
        std::ofstream file(beside, std::ios::binary);
        for (const auto part : parts)
            file.write(reinterpret_cast<const char*>(part.data()),
                       static_cast<std::streamsize>(part.size()));
        file.close();
        if (!file) error = std::make_error_code(std::errc::io_error);
    }
    if (!error) fs::rename(beside, path, error);
    if (!error) return true;
    fs::remove(beside, error);
    return false;
}

}  // namespace fovea::vk
