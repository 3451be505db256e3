#include "vision/rle.h"

#include <gtest/gtest.h>

#include <random>
#include <string_view>

namespace fovea {
namespace {

/// From the format's description alone, run by run.
Mask decode(std::string_view text, int width, int height) {
    std::vector<long> runs;
    for (size_t at = 0; at < text.size();) {
        long value = 0;
        int shift = 0;
        unsigned part = 0;
        do {
            part = static_cast<unsigned>(text[at++]) - 48u;
            value += static_cast<long>(part % 32u) << shift;
            shift += 5;
        } while (part >= 32u);
        if ((part & 16u) != 0) value -= 1L << shift;
        runs.push_back(runs.size() > 2 ? value + runs[runs.size() - 2] : value);
    }
    Mask mask{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height))};
    long pixel = 0;
    for (size_t run = 0; run < runs.size(); ++run)
        for (long end = pixel + runs[run]; pixel < end; ++pixel)
            mask.at(static_cast<int>(pixel / height), static_cast<int>(pixel % height)) = run % 2;
    EXPECT_EQ(pixel, static_cast<long>(width) * height);
    return mask;
}

Mask drawn(int width, int height, const std::string& rows) {
    Mask mask{width, height, {}};
    for (const char c : rows) mask.hole.push_back(c == '#');
    return mask;
}

// By hand from the rule.
TEST(Rle, KnownStrings) {
    EXPECT_EQ(encode_rle(drawn(2, 2, "....")), "4");
    EXPECT_EQ(encode_rle(Mask{10, 10, std::vector<uint8_t>(100, 1)}), "0T3");
    // Columns ".#." and "###": runs 1, 1, 1, 3, the last less the second: 2
    EXPECT_EQ(encode_rle(drawn(2, 3,
                               ".#"
                               "##"
                               ".#")),
              "1112");
    // Runs 0, 20, 1, 3: 3 − 20 = −17 takes two characters.
    Mask mask{1, 24, std::vector<uint8_t>(24, 1)};
    mask.hole[20] = 0;
    EXPECT_EQ(encode_rle(mask), "0d01_O");
}

TEST(Rle, ComesBackAsItWas) {
    std::mt19937 random(7);
    for (const auto& [width, height] : {std::pair{1, 1}, {1, 90}, {90, 1}, {37, 53}, {300, 200}})
        for (const double share : {0.0, 0.02, 0.5, 0.98, 1.0}) {
            std::bernoulli_distribution coin(share);
            Mask mask{width, height, {}};
            for (int i = 0; i < width * height; ++i) mask.hole.push_back(coin(random));
            if (width > 100)  // long runs, as masks have
                for (int y = 0; y < height; ++y)
                    for (int x = 0; x < width; ++x)
                        mask.at(x, y) = mask.at(x / 40 * 40, y / 30 * 30);
            EXPECT_EQ(decode(encode_rle(mask), width, height).hole, mask.hole)
                << width << "x" << height << " " << share;
        }
}

}  // namespace
}  // namespace fovea
