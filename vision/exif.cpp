#include "vision/exif.h"

#include <cstdint>
#include <optional>
#include <string_view>

namespace fovea {

namespace {

using namespace std::string_view_literals;

/// Numbers of 2 or 4 bytes in either byte order; reading outside gives 0, which no caller takes for
/// an answer.
struct Reader {
    std::string_view bytes;
    bool big_endian;

    uint32_t number(size_t offset, size_t width) const {
        if (offset > bytes.size() || bytes.size() - offset < width) return 0;
        uint32_t result = 0;
        for (size_t i = 0; i < width; ++i) {
            const size_t at = offset + (big_endian ? i : width - 1 - i);
            result = result << 8 | static_cast<uint8_t>(bytes[at]);
        }
        return result;
    }
};

/// The Exif block's TIFF structure, from the JPEG's APP1 segment.
std::string_view find_tiff(std::string_view jpeg) {
    if (!jpeg.starts_with("\xff\xd8"sv)) return {};
    const Reader file{jpeg, true};
    for (size_t at = 2; file.number(at, 1) == 0xff;) {
        const uint32_t marker = file.number(at + 1, 1), length = file.number(at + 2, 2);
        if (marker == 0xda || length < 2 || jpeg.size() - at < 2 + size_t{length}) return {};
        const std::string_view segment = jpeg.substr(at + 4, length - 2);
        if (marker == 0xe1 && segment.starts_with("Exif\0\0"sv)) return segment.substr(6);
        at += 2 + size_t{length};
    }
    return {};
}

}  // namespace

int exif_orientation(std::span<const std::byte> jpeg) {
    constexpr uint32_t kOrientation = 0x0112, kShort = 3;
    const std::string_view tiff =
        find_tiff({reinterpret_cast<const char*>(jpeg.data()), jpeg.size()});
    const bool big_endian = tiff.starts_with("MM");
    if (!big_endian && !tiff.starts_with("II")) return 1;
    const Reader reader{tiff, big_endian};
    const size_t directory = reader.number(4, 4);
    const uint32_t entries = reader.number(directory, 2);
    for (uint32_t i = 0; i < entries; ++i) {
        const size_t entry = directory + 2 + 12 * size_t{i};
        if (reader.number(entry, 2) != kOrientation || reader.number(entry + 2, 2) != kShort)
            continue;
        const uint32_t value = reader.number(entry + 8, 2);
        return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
    return 1;
}

}  // namespace fovea
