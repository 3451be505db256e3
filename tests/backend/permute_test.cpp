#include "backend/ops/permute.h"

#include <algorithm>
#include <numeric>

#include "backend/error.h"
#include "backend/reference/permute.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::device;
using testing::input;

struct Case {
    Shape shape;
    std::vector<int> axes;
};

const Case kCases[] = {
    {{1}, {0}},
    {{17}, {0}},
    {{5, 7}, {1, 0}},
    {{3, 8, 16}, {2, 0, 1}},
    {{2, 13, 3, 4, 24}, {2, 0, 3, 1, 4}},      // q, k, v of heads
    {{2, 3, 2, 5, 2, 7}, {0, 1, 3, 5, 2, 4}},  // patches
    {{2, 3, 5, 2, 3, 2}, {5, 4, 3, 2, 1, 0}},
    {{1, 4, 1, 6, 1, 8}, {5, 0, 3, 2, 1, 4}},
};

TEST(Permute, AgreesWithReference) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage)
        for (const Case& c : kCases) {
            SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), to_string(c.shape)));
            const auto x = input(stream, c.shape, 1, dtype);
            testing::poison(stream, c.shape, dtype);
            const Tensor y = permute(stream, x.device, c.axes);
            EXPECT_EQ(to_host(stream, y), reference::permute(x.host, c.shape, c.axes));
            for (size_t k = 0; k < c.axes.size(); ++k)
                EXPECT_EQ(y.shape()[k], c.shape[static_cast<size_t>(c.axes[k])]);
        }
}

TEST(Permute, EveryOrderOfFourAxes) {
    vk::Stream stream(device());
    const Shape shape{2, 3, 4, 5};
    const auto x = input(stream, shape, 1, DType::f16);
    std::vector<int> axes{0, 1, 2, 3};
    do {
        EXPECT_EQ(to_host(stream, permute(stream, x.device, axes)),
                  reference::permute(x.host, shape, axes));
    } while (std::next_permutation(axes.begin(), axes.end()));
}

TEST(Permute, KeepsEveryBitOfAnyType) {
    vk::Stream stream(device());
    std::vector<int32_t> bits{0x7fc00001, -1, 1, 0x7f800000, 5, 6};
    const Tensor x = upload(stream, bits, {2, 3});
    const Tensor y = permute(stream, permute(stream, x, {1, 0}), {1, 0});
    std::vector<int32_t> found(6);
    stream.download(read(y), std::as_writable_bytes(std::span(found)));
    EXPECT_EQ(found, bits);
}

TEST(Permute, MoreWorkgroupsThanOneAxisHolds) {
    vk::Stream stream(device());
    const int64_t columns = 65537 * 256 / 3 | 1;  // odd: one element an invocation
    std::vector<float> values(static_cast<size_t>(columns * 3)), expected(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(i % 2039);
        expected[i % 3 * static_cast<size_t>(columns) + i / 3] = values[i];
    }
    const Tensor x = upload(stream, values, {columns, 3}, DType::f16);
    EXPECT_EQ(to_host(stream, permute(stream, x, {1, 0})), expected);
}

TEST(Columns, AreRowsWithGaps) {
    vk::Stream stream(device());
    const auto x = input(stream, {3, 4, 24}, 1, DType::f32);
    const Tensor view = x.device.columns(8, 12);
    EXPECT_EQ(view.shape(), (Shape{3, 4, 12}));
    EXPECT_EQ(view.pitch(12), 24);
    EXPECT_EQ(view.bytes(), (11u * 24 + 12) * 4);
    const auto rows = [&](size_t first, size_t count, size_t begin, size_t n) {
        std::vector<float> values;
        for (size_t row = first; row < first + count; ++row)
            values.insert(values.end(), x.host.begin() + row * 24 + begin,
                          x.host.begin() + row * 24 + begin + n);
        return values;
    };
    const auto found = [&](const Tensor& t) { return to_host(stream, compact(stream, t)); };
    EXPECT_EQ(found(view), rows(0, 12, 8, 12));
    EXPECT_EQ(found(view.slice(1, 2)), rows(4, 8, 8, 12));
    EXPECT_EQ(found(view.index(2).slice(1, 2)), rows(9, 2, 8, 12));
    EXPECT_EQ(found(view.reshape({12, 12}).columns(4, 8)), rows(0, 12, 12, 8));
    EXPECT_EQ(view.reshape({12, 3, 4}).pitch(12), 24);
    EXPECT_THROW(view.reshape({4, 4, 9}), Error);
    EXPECT_THROW(view.reshape({6, 24}), Error);
    EXPECT_THROW(view.reshape({12, 3, 4}).index(0).index(0).slice(0, 2).pitch(4), Error);
    EXPECT_THROW(view.pitch(4), Error);
    EXPECT_THROW(view.columns(8, 8), Error);
    EXPECT_THROW(to_host(stream, view), Error);
    const Tensor heads = view.reshape({3, 4, 2, 6});
    EXPECT_EQ(to_host(stream, permute(stream, heads, {0, 2, 1, 3})),
              to_host(stream, permute(stream, compact(stream, heads), {0, 2, 1, 3})));
}

TEST(Permute, RefusesWrongAxes) {
    vk::Stream stream(device());
    const auto x = input(stream, {2, 3}, 1, DType::f32);
    EXPECT_THROW(permute(stream, x.device, {0}), Error);
    EXPECT_THROW(permute(stream, x.device, {0, 0}), Error);
    EXPECT_THROW(permute(stream, x.device, {0, 2}), Error);
    EXPECT_THROW(permute(stream, x.device, {-1, 0}), Error);
    EXPECT_THROW(strided_copy(stream, x.device, {2, 3}, {3, 2}), Error);
    EXPECT_THROW(strided_copy(stream, x.device, {2, 3}, {3, -1}), Error);
    EXPECT_THROW(permute(stream, x.device.reshape({1, 1, 1, 1, 1, 2, 3}), {0, 1, 2, 3, 4, 5, 6}),
                 Error);
}

}  // namespace
}  // namespace fovea
