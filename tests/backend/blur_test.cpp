#include "backend/ops/blur.h"

#include "backend/error.h"
#include "backend/reference/blur.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;
using testing::input;

TEST(Blur, AgreesWithReference) {
    vk::Stream stream(device());
    constexpr float kMean = std::numeric_limits<float>::infinity();
    for (const DType dtype : testing::kStorage)
        for (const auto& [grid, sigma] : {std::pair<std::array<size_t, 3>, float>{{1, 5, 7}, 1.5f},
                                          {{2, 4, 3}, 0.4f},
                                          {{2, 6, 5}, kMean},
                                          {{1, 1, 9}, 3},
                                          {{3, 8, 1}, 2}}) {
            constexpr size_t kBatch = 2, kHeads = 3, kDim = 8;
            const auto tokens = static_cast<int64_t>(grid[0] * grid[1] * grid[2]);
            const Shape shape{kBatch, tokens, kHeads, kDim};
            const auto x = input(stream, shape, 1, dtype);
            const std::vector<float> chosen{1, 0, 1};
            testing::poison(stream, shape, dtype);
            const Tensor y =
                blur_tokens(stream, x.device,
                            {.grid = {static_cast<int64_t>(grid[0]), static_cast<int64_t>(grid[1]),
                                      static_cast<int64_t>(grid[2])},
                             .sigma = sigma,
                             .heads = upload(stream, chosen, {3}, DType::f32)});
            // Rounded once more between the axes.
            testing::Tolerance allowed = testing::tolerance(dtype);
            EXPECT_TRUE(close(to_host(stream, y),
                              reference::blur_tokens(x.host, kBatch, grid, chosen, kDim, sigma),
                              allowed))
                << sigma;
        }
}

TEST(Blur, RefusesWhatDoesNotFit) {
    vk::Stream stream(device());
    const Tensor x = input(stream, {1, 6, 2, 8}, 1, DType::f32).device;
    const Tensor heads = upload(stream, std::vector<float>{1, 1}, {2}, DType::f32);
    EXPECT_THROW(blur_tokens(stream, x, {.grid = {1, 2, 2}, .sigma = 1, .heads = heads}), Error);
    EXPECT_THROW(blur_tokens(stream, x, {.grid = {1, 2, 3}, .sigma = 0, .heads = heads}), Error);
    EXPECT_THROW(blur_tokens(stream, x, {.grid = {1, 2, 3}, .sigma = 1}), Error);
}

}  // namespace
}  // namespace fovea
