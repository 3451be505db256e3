#include "vision/png_text.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "backend/error.h"
#include "vision/file.h"
#include "vision/utf8.h"

namespace fovea {

namespace {

using namespace std::string_view_literals;

constexpr std::string_view kSignature = "\x89PNG\r\n\x1a\n"sv;
constexpr size_t kFrame = 12;  // length, type and CRC of a chunk

/// CRC-32 of ISO 3309, a nibble at a time.
uint32_t crc32(std::string_view bytes) {
    static constexpr auto kTable = [] {
        std::array<uint32_t, 16> table{};
        for (uint32_t i = 0; i < 16; ++i) {
            uint32_t value = i;
            for (int bit = 0; bit < 4; ++bit)
                value = (value & 1) != 0 ? value >> 1 ^ 0xedb88320u : value >> 1;
            table[i] = value;
        }
        return table;
    }();
    uint32_t crc = ~0u;
    for (const char letter : bytes) {
        crc ^= static_cast<uint8_t>(letter);
        crc = crc >> 4 ^ kTable[crc & 15];
        crc = crc >> 4 ^ kTable[crc & 15];
    }
    return ~crc;
}

std::string big_endian(uint32_t number) {
    std::string text;
    for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(number >> shift & 0xff);
    return text;
}

uint32_t read_big_endian(std::string_view bytes) {
    uint32_t number = 0;
    for (size_t i = 0; i < 4; ++i) number = number << 8 | static_cast<uint8_t>(bytes[i]);
    return number;
}

bool is_plain(char letter) {
    return (letter >= 0x20 && letter <= 0x7e) || letter == '\n';
}

bool is_keyword(std::string_view keyword) {
    return !keyword.empty() && keyword.size() <= 79 && keyword.front() != ' ' &&
           keyword.back() != ' ' && keyword.find("  ") == keyword.npos &&
           keyword.find('\n') == keyword.npos &&
           std::all_of(keyword.begin(), keyword.end(), is_plain);
}

std::string text_chunk(const std::string& keyword, const std::string& text) {
    require(is_keyword(keyword),
            "[png text] expected a keyword of 1 to 79 printable ASCII characters, found {:?}",
            keyword);
    require(text.find('\0') == text.npos && is_utf8(text),
            "[png text] expected UTF-8 without zero bytes for {}", keyword);
    const bool plain = std::all_of(text.begin(), text.end(), is_plain);
    // iTXt: keyword, 0, compressed?, method, language, 0, translated keyword, 0, text.
    const std::string body = plain ? "tEXt" + keyword + '\0' + text
                                   : "iTXt" + keyword + std::string("\0\0\0\0\0", 5) + text;
    require(body.size() <= 0x7fffffff, "[png text] the text of {} is too long", keyword);
    return big_endian(static_cast<uint32_t>(body.size() - 4)) + body + big_endian(crc32(body));
}

std::string utf8_of_latin1(std::string_view text) {
    std::string out;
    for (const char letter : text) {
        const auto code = static_cast<uint8_t>(letter);
        if (code < 0x80) {
            out += letter;
        } else {
            out += static_cast<char>(0xc0 | code >> 6);
            out += static_cast<char>(0x80 | (code & 0x3f));
        }
    }
    return out;
}

/// Adds the entry of one tEXt or iTXt chunk, or nothing where it is compressed or malformed.
void add_entry(PngText& entries, bool international, std::string_view body) {
    const size_t end = body.find('\0');
    if (end == body.npos || end == 0 || end > 79) return;
    const std::string keyword = utf8_of_latin1(body.substr(0, end));
    std::string_view text = body.substr(end + 1);
    if (!international) {
        entries.emplace(keyword, utf8_of_latin1(text));
        return;
    }
    if (text.size() < 2 || text[0] != 0) return;  // compressed
    text.remove_prefix(2);
    for (int field = 0; field < 2; ++field) {  // language, translated keyword
        const size_t field_end = text.find('\0');
        if (field_end == text.npos) return;
        text.remove_prefix(field_end + 1);
    }
    if (is_utf8(text)) entries.emplace(keyword, text);
}

std::string_view as_text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::vector<std::byte> insert_png_text(std::span<const std::byte> png, const PngText& text) {
    constexpr size_t kHeaderEnd = 8 + kFrame + 13;  // signature and IHDR
    const std::string_view old = as_text(png);
    require(old.starts_with(kSignature) && old.size() >= kHeaderEnd && old.substr(12, 4) == "IHDR",
            "[png text] expected a PNG picture, found {}", file_kind(png));
    std::string chunks;
    for (const auto& [keyword, value] : text) chunks += text_chunk(keyword, value);

    const auto added = std::as_bytes(std::span(chunks));
    std::vector<std::byte> result(png.size() + added.size());
    auto out = std::copy(png.begin(), png.begin() + kHeaderEnd, result.begin());
    out = std::copy(added.begin(), added.end(), out);
    std::copy(png.begin() + kHeaderEnd, png.end(), out);
    return result;
}

PngText parse_png_text(std::span<const std::byte> png, const std::string& name) {
    std::string_view rest = as_text(png);
    require(rest.starts_with(kSignature), "[png text] expected a PNG picture, found {} to be {}",
            name, file_kind(png));
    rest.remove_prefix(kSignature.size());
    PngText entries;
    while (true) {
        require(rest.size() >= kFrame, "[png text] {} ends in the middle of a chunk", name);
        const uint32_t length = read_big_endian(rest);
        require(length <= rest.size() - kFrame, "[png text] {} ends in the middle of a chunk",
                name);
        const std::string_view chunk = rest.substr(4, 4 + size_t{length});
        const std::string_view type = chunk.substr(0, 4);
        if (type == "IEND") return entries;
        if (type == "tEXt" || type == "iTXt") {
            require(crc32(chunk) == read_big_endian(rest.substr(8 + size_t{length})),
                    "[png text] {} has a damaged {} chunk", name, type);
            add_entry(entries, type == "iTXt", chunk.substr(4));
        }
        rest.remove_prefix(kFrame + length);
    }
}

}  // namespace fovea
