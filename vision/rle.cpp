#include "vision/rle.h"

#include <vector>

namespace fovea {
namespace {

constexpr int kBits = 5;
constexpr int64_t kLow = (1 << kBits) - 1, kSign = 1 << (kBits - 1), kMore = 1 << kBits;

void append(std::string& text, int64_t value) {
    bool more = true;
    while (more) {
        int64_t part = value & kLow;
        value >>= kBits;
        more = value != ((part & kSign) != 0 ? -1 : 0);
        if (more) part |= kMore;
        text.push_back(static_cast<char>('0' + part));
    }
}

}  // namespace

std::string encode_rle(const Mask& mask) {
    std::vector<int64_t> runs{0};
    uint8_t current = 0;
    for (int x = 0; x < mask.width; ++x)
        for (int y = 0; y < mask.height; ++y) {
            if (mask.at(x, y) != current) {
                current = mask.at(x, y);
                runs.push_back(0);
            }
            ++runs.back();
        }
    std::string text;
    for (size_t i = 0; i < runs.size(); ++i) append(text, i > 2 ? runs[i] - runs[i - 2] : runs[i]);
    return text;
}

}  // namespace fovea
