#include "backend/ops/rescale.h"

#include <gtest/gtest.h>

#include "backend/error.h"
#include "backend/ops/permute.h"
#include "backend/reference/rescale.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;

TEST(Rescale, AgreesWithReferenceInBothLayouts) {
    for (const DType dtype : testing::kStorage) {
        vk::Stream stream(device());
        const Shape shape{2, 3, 7, 12};
        const auto x = testing::input(stream, shape, 1, dtype),
                   addend = testing::input(stream, shape, 2, dtype);
        auto factor = testing::random_values(2 * 3 * 7, 3);  // some below 0 and above 1
        const Tensor factors = upload(stream, factor, {2, 3, 7}, DType::f32);
        const auto expected = reference::rescale(x.host, factor, addend.host, 0.25f, true);
        const RescaleOptions options{.shift = 0.25f, .subtract = true};
        const auto swapped = [&](const Tensor& t) { return permute(stream, t, {0, 2, 1, 3}); };
        testing::poison(stream, shape, dtype);
        EXPECT_TRUE(
            close(to_host(stream, rescale(stream, x.device, factors, addend.device, options)),
                  expected, testing::tolerance(dtype)));
        RescaleOptions tokens_first = options;
        tokens_first.layout = HeadLayout::tokens_first;
        const Tensor y =
            rescale(stream, swapped(x.device), factors, swapped(addend.device), tokens_first);
        EXPECT_TRUE(close(to_host(stream, swapped(y)), expected, testing::tolerance(dtype)));
    }
}

TEST(Rescale, RefusesWhatDoesNotFit) {
    vk::Stream stream(device());
    const Tensor x = empty(device(), {1, 2, 4, 8}, DType::f32);
    const Tensor few = empty(device(), {1, 2, 3}, DType::f32);
    EXPECT_THROW(rescale(stream, x, few, x), Error);
    EXPECT_THROW(rescale(stream, x, few, few), Error);
}

}  // namespace
}  // namespace fovea
