#include "backend/ops/embedding.h"

#include "backend/error.h"
#include "backend/reference/embedding.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

TEST(Embedding, AgreesWithReference) {
    vk::Stream stream(testing::device());
    for (const DType dtype : testing::kStorage)
        for (const int64_t width : {1, 7, 192}) {
            const std::vector<int32_t> ids{4, 0, 0, 10, 3, 10, 1};
            const auto table = testing::input(stream, {11, width}, 1, dtype);
            testing::poison(stream, {7, width}, dtype);
            const Tensor y = embedding(stream, upload(stream, ids, {7}), table.device);
            EXPECT_EQ(y.shape(), (Shape{7, width}));
            EXPECT_EQ(to_host(stream, y),
                      reference::embedding(ids, table.host, static_cast<size_t>(width)));
        }
}

TEST(Embedding, IdOutsideTheTableIsNan) {
    vk::Stream stream(testing::device());
    for (const DType dtype : testing::kStorage) {
        const auto table = testing::input(stream, {3, 2}, 1, dtype);
        const std::vector<int32_t> ids{2, 3, -1};
        const auto y = to_host(stream, embedding(stream, upload(stream, ids, {3}), table.device));
        for (size_t i = 0; i < 6; ++i) EXPECT_EQ(std::isnan(y[i]), i >= 2) << i;
    }
}

TEST(Embedding, RefusesWrongInput) {
    vk::Stream stream(testing::device());
    const auto table = testing::input(stream, {3, 2}, 1, DType::f32);
    const Tensor ids = upload(stream, std::vector<int32_t>{0, 1}, {2});
    EXPECT_THROW(embedding(stream, table.device.reshape({6}), table.device), Error);
    EXPECT_THROW(embedding(stream, ids, table.device.reshape({6})), Error);
    EXPECT_THROW(embedding(stream, ids.reshape({1, 2}), table.device), Error);
}

}  // namespace
}  // namespace fovea
