#include "vision/guided_filter.h"

#include <gtest/gtest.h>

#include <cmath>

#include "backend/error.h"

namespace fovea {
namespace {

constexpr int kWidth = 40, kHeight = 30;

/// Left of column 17 one colour, the other right of it.
Image two_colors() {
    Image image{kWidth, kHeight, {}};
    for (int i = 0; i < kWidth * kHeight; ++i) {
        const bool left = i % kWidth < 17;
        for (const float value : {left ? 0.9f : 0.2f, left ? 0.3f : 0.4f, left ? 0.1f : 0.8f})
            image.rgb.push_back(value);
    }
    return image;
}

TEST(GuidedFilter, DrawsAMapAlongTheEdge) {
    std::vector<float> map(kWidth * kHeight);  // coarse: the edge at column 20
    for (size_t i = 0; i < map.size(); ++i) map[i] = i % kWidth < 20 ? 1 : 0;
    const auto fine = guided_filter(two_colors(), map, 8, 1e-4f);
    for (size_t i = 0; i < fine.size(); ++i) {
        const size_t x = i % kWidth;
        if (x < 17) {
            EXPECT_GT(fine[i], 0.85f) << x;
        }
        if (x >= 20) {
            EXPECT_LT(fine[i], 0.45f) << x;
        }
        if (x >= 30) {
            EXPECT_LT(fine[i], 0.1f) << x;
        }
    }
    EXPECT_GT(fine[16] - fine[17], 0.5f);
    EXPECT_LT(std::abs(fine[19] - fine[20]), 0.1f);  // nothing is left of the map's own edge
}

TEST(GuidedFilter, WithoutAnEdgeItIsTheMeanOfMeans) {
    Image plain{kWidth, kHeight, std::vector<float>(kWidth * kHeight * 3, 0.5f)};
    std::vector<float> map(kWidth * kHeight, 0);
    map[15 * kWidth + 20] = 1;
    const auto blurred = guided_filter(plain, map, 2, 1e-3f);
    EXPECT_NEAR(blurred[15 * kWidth + 20], 1.0f / 25, 1e-6f);
    EXPECT_NEAR(blurred[15 * kWidth + 24], 5.0f / 625, 1e-6f);
    EXPECT_NEAR(blurred[15 * kWidth + 25], 0, 1e-9f);
}

TEST(GuidedFilter, AMapOfAnotherSizeIsAnError) {
    EXPECT_THROW(guided_filter(two_colors(), std::vector<float>(7), 2, 1e-3f), Error);
}

}  // namespace
}  // namespace fovea
