#include "vision/jpeg.h"

#include <cstdint>
#include <string_view>

namespace fovea {

namespace {

using namespace std::string_view_literals;

enum Marker : uint32_t {
    kHuffman = 0xc4,
    kStartOfImage = 0xd8,
    kEndOfImage = 0xd9,
    kScan = 0xda,
    kApp1 = 0xe1
};

/// Numbers of 1, 2 or 4 bytes in either byte order; what lies outside reads as 0.
struct Reader {
    std::string_view bytes;
    bool big_endian = true;

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

std::string_view as_text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Calls visit(marker, content) for the segments before the first scan until it returns false.
/// Returns where in the file that scan, the segment visit refused, or something that is no segment
/// begins.
template <typename Visit>
size_t walk_segments(std::string_view jpeg, Visit visit) {
    const Reader file{jpeg};
    size_t at = jpeg.find_first_not_of('\xff');  // the start-of-image marker
    if (at == 0 || at == jpeg.npos || file.number(at++, 1) != kStartOfImage) return jpeg.size();
    while (true) {
        const size_t found = jpeg.find('\xff', at);  // some files pad between segments
        const size_t marker_at = jpeg.find_first_not_of('\xff', found);
        if (found == jpeg.npos || marker_at == jpeg.npos) return jpeg.size();
        const uint32_t marker = file.number(marker_at, 1), length = file.number(marker_at + 1, 2);
        if (marker == kEndOfImage) return jpeg.size();
        if (marker == kScan || length < 2 || jpeg.size() - marker_at - 1 < length) return found;
        if (!visit(marker, jpeg.substr(marker_at + 3, length - 2))) return found;
        at = marker_at + 1 + length;
    }
}

/// For a DHT segment of `length` bytes at the start of `bytes`: class and number of a table, how
/// many codes have 1 to 16 bits, a byte for each code; repeated. Counts are read behind the
/// segment's end too, as stb_image does.
bool tables_fit(std::string_view bytes, size_t length) {
    size_t at = 0;
    while (at < length) {
        size_t codes = 0;
        for (size_t bits = 1; bits <= 16; ++bits) codes += Reader{bytes}.number(at + bits, 1);
        if (codes > 255) return false;
        at += 17 + codes;
    }
    return true;
}

}  // namespace

int exif_orientation(std::span<const std::byte> jpeg) {
    constexpr uint32_t kOrientation = 0x0112, kShort = 3;
    std::string_view tiff;
    walk_segments(as_text(jpeg), [&](uint32_t marker, std::string_view segment) {
        const bool is_exif = marker == kApp1 && segment.starts_with("Exif\0\0"sv);
        if (is_exif) tiff = segment.substr(6);
        return !is_exif;
    });
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

bool huffman_tables_fit(std::span<const std::byte> jpeg) {
    const std::string_view file = as_text(jpeg);
    bool fit = true;
    size_t at = walk_segments(file, [&](uint32_t marker, std::string_view segment) {
        const auto start = static_cast<size_t>(segment.data() - file.data());
        if (marker == kHuffman) fit = tables_fit(file.substr(start), segment.size());
        return fit;
    });
    // From the first scan on, where a decoder finds the next marker depends on how it reads the
    // compressed data, in which the two bytes of this marker never stand together: every occurrence
    // counts as a table.
    while (fit && (at = file.find("\xff\xc4"sv, at)) != file.npos) {
        const uint32_t length = Reader{file}.number(at + 2, 2);
        if (length > 2) fit = tables_fit(file.substr(at + 4), length - 2);
        at += 2;
    }
    return fit;
}

}  // namespace fovea
