#include "vision/pca.h"

#include <gmock/gmock.h>

#include <cmath>

#include "backend/error.h"

namespace fovea {
namespace {

// Vectors spread along known orthonormal axes by known amounts.
TEST(PrincipalComponents, FindsTheAxesOfASpread) {
    const std::vector<std::vector<float>> axes{
        {0.6f, 0.8f, 0, 0}, {-0.8f, 0.6f, 0, 0}, {0, 0, 0.8f, -0.6f}};
    const std::vector<float> spreads{5, 2, 0.5f};
    std::vector<float> values;
    // All combinations of both signs: uncorrelated, variance spread².
    for (int signs = 0; signs < 8; ++signs)
        for (size_t k = 0; k < 4; ++k) {
            float value = 3;  // the mean
            for (size_t a = 0; a < 3; ++a)
                value += (signs >> a & 1 ? 1.0f : -1.0f) * spreads[a] * axes[a][k];
            values.push_back(value);
        }
    const auto found = principal_components(values, 4, 3);
    for (size_t a = 0; a < 3; ++a) {
        EXPECT_NEAR(found.variances[a], spreads[a] * spreads[a], 1e-4);
        const float sign = a == 1 ? -1 : 1;  // the largest entry is positive
        for (size_t k = 0; k < 4; ++k)
            EXPECT_NEAR(found.directions[4 * a + k], sign * axes[a][k], 1e-4) << a << ' ' << k;
    }
    for (size_t row = 0; row < 8; ++row)
        EXPECT_NEAR(std::abs(found.places[3 * row]), 5, 1e-4) << row;
    EXPECT_EQ(principal_components(values, 4, 3).places, found.places);
}

TEST(PrincipalComponents, EqualVectorsHaveNoVariance) {
    const std::vector<float> values{1, 2, 1, 2, 1, 2};
    const auto found = principal_components(values, 2, 2);
    EXPECT_THAT(found.variances, ::testing::Each(0));
    EXPECT_THAT(found.places, ::testing::Each(0));
    EXPECT_THROW(principal_components(values, 4, 1), Error);
    EXPECT_THROW(principal_components(values, 2, 3), Error);
}

}  // namespace
}  // namespace fovea
