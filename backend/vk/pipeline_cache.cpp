/// The driver's pipeline cache on disk. The driver checks device and version in its own header;
/// what it does not check is that the bytes after it are whole, so a length and a hash stand before
/// it.

#include <cstring>
#include <filesystem>
#include <fstream>

#include "backend/log.h"
#include "backend/vk/cache_file.h"
#include "backend/vk/context.h"

namespace fovea::vk {
namespace {

namespace fs = std::filesystem;

struct FileHeader {
    char magic[8] = {'f', 'o', 'v', 'e', 'a', 'p', 'c', '1'};
    uint64_t bytes = 0;
    uint64_t hash = 0;
};

uint64_t fnv1a(std::span<const std::byte> data) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const auto byte : data) hash = (hash ^ static_cast<uint64_t>(byte)) * 0x100000001b3u;
    return hash;
}

}  // namespace

std::string pipeline_cache_path(const VkPhysicalDeviceProperties& properties) {
    const auto folder = cache_folder();
    if (folder.empty()) return {};
    std::string uuid;
    for (const uint8_t byte : properties.pipelineCacheUUID) uuid += fmt::format("{:02x}", byte);
    return folder / fmt::format("pipelines-{:04x}-{:04x}-{}.bin", properties.vendorID,
                                properties.deviceID, uuid);
}

std::vector<std::byte> load_pipeline_cache(const std::string& path,
                                           const VkPhysicalDeviceProperties& properties) {
    if (path.empty()) return {};
    std::ifstream file(path, std::ios::binary);
    if (!file) return {};
    FileHeader header;
    const FileHeader expected;
    file.read(reinterpret_cast<char*>(&header), sizeof header);
    std::error_code error;
    const auto size = fs::file_size(path, error);
    const bool whole = file && !error && std::memcmp(header.magic, expected.magic, 8) == 0 &&
                       size == sizeof header + header.bytes;
    if (!whole) {
        log::debug("pipeline cache {} is not ours or not whole: ignored", path);
        return {};
    }
    std::vector<std::byte> data(header.bytes);
    file.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(data.size()));
    VkPipelineCacheHeaderVersionOne driver{};
    if (data.size() >= sizeof driver) std::memcpy(&driver, data.data(), sizeof driver);
    const bool ours =
        file && fnv1a(data) == header.hash && driver.vendorID == properties.vendorID &&
        driver.deviceID == properties.deviceID &&
        std::memcmp(driver.pipelineCacheUUID, properties.pipelineCacheUUID, VK_UUID_SIZE) == 0;
    if (!ours) {
        log::debug("pipeline cache {} is corrupt or of another device: ignored", path);
        return {};
    }
    return data;
}

void save_pipeline_cache(const std::string& path, std::span<const std::byte> data) {
    if (path.empty()) return;
    FileHeader header;
    header.bytes = data.size();
    header.hash = fnv1a(data);
    if (!write_cache_file(path, {std::as_bytes(std::span(&header, 1)), data}))
        log::debug("pipeline cache {} could not be written", path);
}

}  // namespace fovea::vk
