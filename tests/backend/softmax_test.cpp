#include "backend/ops/softmax.h"

#include "backend/error.h"
#include "backend/reference/softmax.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(Softmax, AgreesWithReference) {
    vk::Stream stream(device());
    for (const char* plan : testing::kRowPlans) {
        const testing::Environment forced("FOVEA_ROWS", plan);
        for (const DType dtype : testing::kStorage)
            for (const auto& [rows, n] :
                 {std::pair<int64_t, int64_t>{1, 1}, {37, 3}, {5, 64}, {2, 1021}, {19, 257}}) {
                SCOPED_TRACE(fmt::format("{} {} {}×{}", plan, name_of(dtype), rows, n));
                const auto x = testing::input(stream, {rows, n}, 1, dtype, 5);
                testing::poison(stream, {rows, n}, dtype);
                EXPECT_TRUE(close(to_host(stream, softmax(stream, x.device)),
                                  reference::softmax(x.host, static_cast<size_t>(n)),
                                  testing::tolerance(dtype)));
            }
    }
    EXPECT_THROW(softmax(stream, Tensor()), Error);
}

TEST(Softmax, LongRowsKeepTheirDigits) {
    vk::Stream stream(device());
    const auto x = testing::input(stream, {1, 70001}, 1, DType::f32, 5);
    EXPECT_TRUE(close(to_host(stream, softmax(stream, x.device)), reference::softmax(x.host, 70001),
                      testing::tolerance(DType::f32)));
}

TEST(Softmax, LargeAndInfiniteScores) {
    vk::Stream stream(device());
    const std::vector<float> values{1000,  999,   -1000, -kInf, -kInf, -kInf,
                                    -3e38, -kInf, 0,     3e38,  1e30,  -kInf};
    const Tensor x = upload(stream, values, {4, 3}, DType::f32);
    for (const char* plan : testing::kRowPlans) {
        const testing::Environment forced("FOVEA_ROWS", plan);
        EXPECT_TRUE(close(to_host(stream, softmax(stream, x)), reference::softmax(values, 3),
                          testing::tolerance(DType::f32)));
    }
}

}  // namespace
}  // namespace fovea
