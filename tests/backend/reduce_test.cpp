#include "backend/ops/reduce.h"

#include "backend/error.h"
#include "backend/reference/reduce.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;
using testing::input;

TEST(MeanTokens, AgreesWithReference) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage)
        for (const auto& [b, n, w] :
             {std::array<int64_t, 3>{1, 1, 1}, {2, 32, 192}, {3, 257, 5}, {1, 7, 67}}) {
            const auto x = input(stream, {b, n, w}, 1, dtype);
            testing::poison(stream, {b, w}, dtype);
            const Tensor y = mean_tokens(stream, x.device);
            EXPECT_EQ(y.shape(), (Shape{b, w}));
            EXPECT_TRUE(
                close(to_host(stream, y),
                      reference::mean_tokens(x.host, static_cast<size_t>(b), static_cast<size_t>(n),
                                             static_cast<size_t>(w)),
                      testing::tolerance(dtype)));
        }
    EXPECT_THROW(mean_tokens(stream, input(stream, {2, 3}, 1, DType::f32).device), Error);
}

void expect_statistics(vk::Stream& stream, std::span<const float> values, DType dtype) {
    const auto s =
        statistics(stream, upload(stream, values, {static_cast<int64_t>(values.size())}, dtype));
    const auto expected = reference::statistics(values);
    EXPECT_EQ(s.min, expected.min);
    EXPECT_EQ(s.max, expected.max);
    EXPECT_EQ(s.nan, expected.nan);
    EXPECT_EQ(s.inf, expected.inf);
    EXPECT_NEAR(s.mean, expected.mean, 1e-5 * (1 + std::abs(expected.mean)));
    EXPECT_NEAR(s.stddev, expected.stddev, 1e-4 * expected.stddev);
}

TEST(Statistics, AgreeWithReference) {
    vk::Stream stream(device());
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    constexpr float inf = std::numeric_limits<float>::infinity();
    for (const DType dtype : testing::kStorage) {
        for (const size_t n : {1u, 2u, 63u, 65u, 4099u, 300007u})
            expect_statistics(stream, testing::random_values(n, 1, dtype, 2), dtype);
        auto values = testing::random_values(1000, 2, dtype);
        values[3] = nan, values[999] = -nan, values[500] = inf, values[501] = -inf;
        expect_statistics(stream, values, dtype);
        values[0] = nan;  // the element moments are taken about
        expect_statistics(stream, values, dtype);
        expect_statistics(stream, std::vector<float>{nan, inf, nan}, dtype);
    }
    auto shifted = testing::random_values(5000, 3);
    for (float& value : shifted) value += 1000;
    expect_statistics(stream, shifted, DType::f32);
}

TEST(Statistics, ConstantHasNoDeviation) {
    vk::Stream stream(device());
    const Tensor x = upload(stream, std::vector<float>(77777, 0.3f), {77777}, DType::f32);
    EXPECT_EQ(statistics(stream, x).stddev, 0);
    EXPECT_EQ(statistics(stream, x).mean, double{0.3f});
}

}  // namespace
}  // namespace fovea
