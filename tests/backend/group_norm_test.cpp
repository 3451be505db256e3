#include "backend/ops/group_norm.h"

#include "backend/error.h"
#include "backend/reference/group_norm.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;
using testing::input;
using testing::tolerance;

struct Case {
    Shape shape;
    int groups;
    Activation activation;
};

const Case kCases[] = {{{1, 1, 1, 1}, 1, Activation::none},
                       {{2, 3, 5, 12}, 4, Activation::silu},
                       {{1, 32, 32, 64}, 4, Activation::relu},
                       {{3, 7, 11, 9}, 3, Activation::none},
                       {{1, 97, 101, 5}, 5, Activation::none}};  // more pixels than 512 · 16

std::vector<float> reference_of(const Case& c, std::span<const float> x,
                                std::span<const float> weight, std::span<const float> bias) {
    return reference::group_norm(x, static_cast<size_t>(c.shape[0]),
                                 static_cast<size_t>(c.shape[3]), static_cast<size_t>(c.groups),
                                 weight, bias, 1e-5f, c.activation);
}

TEST(GroupNorm, AgreesWithReference) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage)
        for (const Case& c : kCases) {
            SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), to_string(c.shape)));
            const auto x = input(stream, c.shape, 1, dtype, 3);
            const auto weight = input(stream, {c.shape[3]}, 2, dtype);
            const auto bias = input(stream, {c.shape[3]}, 3, dtype);
            testing::poison(stream, c.shape, dtype);
            const Tensor y = group_norm(stream, x.device,
                                        {.weight = weight.device,
                                         .bias = bias.device,
                                         .groups = c.groups,
                                         .activation = c.activation});
            EXPECT_TRUE(close(to_host(stream, y), reference_of(c, x.host, weight.host, bias.host),
                              tolerance(dtype)));
        }
}

TEST(GroupNorm, WithoutWeightAndBias) {
    vk::Stream stream(device());
    const Case c{{2, 5, 4, 6}, 2, Activation::none};
    const auto x = input(stream, c.shape, 1, DType::f32);
    EXPECT_TRUE(close(to_host(stream, group_norm(stream, x.device, {.groups = 2})),
                      reference_of(c, x.host, {}, {}), tolerance(DType::f32)));
}

TEST(GroupNorm, LargeMeanDoesNotCancel) {
    vk::Stream stream(device());
    const Case c{{1, 40, 50, 4}, 2, Activation::none};
    auto values = testing::random_values(testing::numel(c.shape), 1);
    for (float& value : values) value += 4096;
    const Tensor x = upload(stream, values, c.shape, DType::f32);
    EXPECT_TRUE(close(to_host(stream, group_norm(stream, x, {.groups = 2})),
                      reference_of(c, values, {}, {}), {2e-3f, 2e-3f}));
}

TEST(GroupNorm, SameBitsEveryRun) {
    vk::Stream stream(device());
    const auto x = input(stream, {2, 31, 17, 8}, 1, DType::f32);
    const auto first = to_host(stream, group_norm(stream, x.device, {.groups = 4}));
    for (int i = 0; i < 3; ++i)
        EXPECT_EQ(to_host(stream, group_norm(stream, x.device, {.groups = 4})), first);
}

TEST(GroupNorm, RefusesWrongShapes) {
    vk::Stream stream(device());
    const auto x = input(stream, {1, 2, 3, 6}, 1, DType::f32);
    const auto four = input(stream, {4}, 1, DType::f32);
    EXPECT_THROW(group_norm(stream, x.device, {.groups = 4}), Error);
    EXPECT_THROW(group_norm(stream, x.device, {.groups = 0}), Error);
    EXPECT_THROW(group_norm(stream, x.device, {.weight = four.device, .groups = 2}), Error);
    EXPECT_THROW(group_norm(stream, x.device.reshape({6, 6}), {.groups = 2}), Error);
}

}  // namespace
}  // namespace fovea
