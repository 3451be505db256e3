#include "backend/ops/patches.h"

#include "backend/error.h"
#include "backend/reference/patches.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

struct Case {
    int64_t b, h, w, c;
    int p;
};

const Case kCases[] = {{1, 1, 1, 1, 1}, {2, 4, 6, 3, 2}, {1, 32, 32, 12, 2}, {3, 9, 3, 5, 3}};

TEST(Patches, AgreeWithReferenceAndInvert) {
    vk::Stream stream(testing::device());
    for (const DType dtype : testing::kStorage)
        for (const auto& [b, h, w, c, p] : kCases) {
            const auto x = testing::input(stream, {b, h, w, c}, 1, dtype);
            testing::poison(stream, {b, h, w, c}, dtype);
            const Tensor y = patchify(stream, x.device, p);
            EXPECT_EQ(y.shape(), (Shape{b, h / p * (w / p), c * p * p}));
            EXPECT_EQ(to_host(stream, y),
                      reference::patchify(x.host, static_cast<size_t>(b), static_cast<size_t>(h),
                                          static_cast<size_t>(w), static_cast<size_t>(c),
                                          static_cast<size_t>(p)));
            testing::poison(stream, {b, h, w, c}, dtype);
            const Tensor back = unpatchify(stream, y, h, w, p);
            EXPECT_EQ(back.shape(), x.device.shape());
            EXPECT_EQ(to_host(stream, back), x.host);
        }
}

TEST(Patches, RefuseWhatDoesNotFit) {
    vk::Stream stream(testing::device());
    const auto x = testing::input(stream, {1, 4, 6, 4}, 1, DType::f32);
    EXPECT_THROW(patchify(stream, x.device, 4), Error);
    EXPECT_THROW(patchify(stream, x.device, 0), Error);
    EXPECT_THROW(patchify(stream, x.device.reshape({4, 6, 4}), 2), Error);
    const Tensor tokens = x.device.reshape({1, 6, 16});
    EXPECT_THROW(unpatchify(stream, tokens, 4, 8, 2), Error);
    EXPECT_THROW(unpatchify(stream, tokens, 4, 5, 2), Error);
    EXPECT_THROW(unpatchify(stream, tokens.reshape({1, 6, 8, 2}), 4, 6, 2), Error);
}

}  // namespace
}  // namespace fovea
