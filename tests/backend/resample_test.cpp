#include "backend/ops/resample.h"

#include "backend/error.h"
#include "backend/reference/resample.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

TEST(UpsampleNearest, AgreesWithReference) {
    vk::Stream stream(testing::device());
    for (const DType dtype : testing::kStorage)
        for (const auto& [shape, factor] : std::vector<std::pair<Shape, int>>{
                 {{1, 1, 1, 1}, 1}, {{2, 3, 5, 7}, 2}, {{1, 8, 8, 64}, 2}, {{3, 1, 4, 2}, 3}}) {
            const auto x = testing::input(stream, shape, 1, dtype);
            const Shape large{shape[0], shape[1] * factor, shape[2] * factor, shape[3]};
            testing::poison(stream, large, dtype);
            const Tensor y = upsample_nearest(stream, x.device, factor);
            EXPECT_EQ(y.shape(), large);
            EXPECT_EQ(to_host(stream, y),
                      reference::upsample_nearest(
                          x.host, static_cast<size_t>(shape[0]), static_cast<size_t>(shape[1]),
                          static_cast<size_t>(shape[2]), static_cast<size_t>(shape[3]),
                          static_cast<size_t>(factor)));
        }
}

TEST(UpsampleNearest, RefusesWrongInput) {
    vk::Stream stream(testing::device());
    const auto x = testing::input(stream, {2, 3, 4}, 1, DType::f32);
    EXPECT_THROW(upsample_nearest(stream, x.device, 2), Error);
    EXPECT_THROW(upsample_nearest(stream, x.device.reshape({1, 2, 3, 4}), 0), Error);
}

}  // namespace
}  // namespace fovea
