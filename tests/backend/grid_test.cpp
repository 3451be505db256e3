#include "backend/ops/grid.h"

#include "backend/error.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;

TEST(Grid, CropsAndPads) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage) {
        const auto x = testing::input(stream, {2, 4, 3, 16}, 1, dtype);
        for (const auto& [top, left, rows, columns] :
             {std::array<int64_t, 4>{-2, -1, 7, 5}, {1, 1, 2, 2}, {3, 2, 3, 4}, {-9, 0, 1, 3}}) {
            std::vector<float> expected;
            for (int64_t b = 0; b < 2; ++b)
                for (int64_t row = top; row < top + rows; ++row)
                    for (int64_t column = left; column < left + columns; ++column)
                        for (int64_t c = 8; c < 16; ++c) {
                            const bool inside = row >= 0 && row < 4 && column >= 0 && column < 3;
                            expected.push_back(
                                inside ? x.host[((b * 4 + row) * 3 + column) * 16 + c] : 0);
                        }
            EXPECT_EQ(to_host(stream,
                              crop_grid(stream, x.device.columns(8, 8), top, left, rows, columns)),
                      expected);
        }
    }
    EXPECT_THROW(crop_grid(stream, empty(device(), {1, 2, 2, 6}, DType::f32), 0, 0, 1, 1), Error);
}

TEST(Grid, AveragePools) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage) {
        const int64_t h = 5, w = 8;
        const auto x = testing::input(stream, {2, h, w, 4}, 1, dtype);
        for (const auto& [rows, columns] :
             {std::pair<int64_t, int64_t>{1, 1}, {5, 4}, {7, 3}, {2, 8}}) {
            std::vector<float> expected;
            for (int64_t b = 0; b < 2; ++b)
                for (int64_t i = 0; i < rows; ++i)
                    for (int64_t j = 0; j < columns; ++j)
                        for (int64_t c = 0; c < 4; ++c) {
                            double sum = 0;
                            int count = 0;
                            for (int64_t row = 0; row < h; ++row)
                                for (int64_t column = 0; column < w; ++column) {
                                    // Cells overlap: all pixels that a cell's share touches.
                                    if ((row + 1) * rows <= i * h || row * rows >= (i + 1) * h ||
                                        (column + 1) * columns <= j * w ||
                                        column * columns >= (j + 1) * w)
                                        continue;
                                    sum += x.host[((b * h + row) * w + column) * 4 + c];
                                    ++count;
                                }
                            expected.push_back(static_cast<float>(sum / count));
                        }
            EXPECT_TRUE(close(to_host(stream, average_pool(stream, x.device, rows, columns)),
                              expected, testing::tolerance(dtype)));
        }
    }
}

TEST(Grid, ConcatenatesRowsThatMayRepeat) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage) {
        // Two heads of 8 as columns of a tensor 32 wide, then rows of each head, shared by tokens.
        const auto wide = testing::input(stream, {2, 3, 32}, 1, dtype);
        const auto shared = testing::input(stream, {2, 4}, 2, dtype);
        const auto last = testing::input(stream, {2, 3, 2, 12}, 3, dtype);
        const Tensor view = wide.device.columns(16, 16).reshape({2, 3, 2, 8});
        std::vector<float> expected;
        for (size_t row = 0; row < 12; ++row) {
            const auto append = [&](const std::vector<float>& from, size_t begin, size_t count) {
                expected.insert(expected.end(), from.begin() + static_cast<long>(begin),
                                from.begin() + static_cast<long>(begin + count));
            };
            append(wide.host, row / 2 * 32 + 16 + row % 2 * 8, 8);
            append(shared.host, row % 2 * 4, 4);
            append(last.host, row * 12, 12);
        }
        const Tensor y = concat(stream, {view, shared.device, last.device});
        EXPECT_EQ(y.shape(), (Shape{2, 3, 2, 24}));
        EXPECT_EQ(to_host(stream, y), expected);
        EXPECT_THROW(concat(stream, {view}), Error);
        EXPECT_THROW(concat(stream, {view, empty(device(), {5, 4}, dtype)}), Error);
    }
}

}  // namespace
}  // namespace fovea
