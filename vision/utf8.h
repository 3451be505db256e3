#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace fovea {

struct CodePoint {
    char32_t value;
    size_t bytes;  // taken from the text, at least 1
    bool valid;    // false: no UTF-8 here; value is U+FFFD and one byte is taken
};

/// The first code point of a text that is not empty. Overlong forms and surrogates are not valid.
constexpr CodePoint first_code_point(std::string_view text) {
    constexpr CodePoint kInvalid = {0xFFFD, 1, false};
    const auto lead = static_cast<uint8_t>(text[0]);
    if (lead < 0x80) return {lead, 1, true};
    const size_t bytes = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (bytes == 0 || text.size() < bytes) return kInvalid;
    auto value = static_cast<char32_t>(lead & (0x7f >> bytes));
    for (size_t i = 1; i < bytes; ++i) {
        const auto next = static_cast<uint8_t>(text[i]);
        if ((next & 0xc0) != 0x80) return kInvalid;
        value = value << 6 | (next & 0x3f);
    }
    constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool surrogate = value >= 0xd800 && value < 0xe000;
    if (value < kSmallest[bytes] || surrogate || value > 0x10ffff) return kInvalid;
    return {value, bytes, true};
}

constexpr bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const CodePoint next = first_code_point(text);
        if (!next.valid) return false;
        text.remove_prefix(next.bytes);
    }
    return true;
}

}  // namespace fovea
