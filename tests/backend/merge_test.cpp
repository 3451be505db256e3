#include "backend/ops/merge.h"

#include <gmock/gmock.h>

#include "backend/error.h"
#include "backend/ops/attention.h"
#include "backend/ops/range_mass.h"
#include "backend/reference/merge.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;
using ::testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();

/// −∞ in both is equal; −∞ − −∞ is NaN.
::testing::AssertionResult lse_close(std::vector<float> found, std::vector<float> expected,
                                     testing::Tolerance allowed) {
    for (size_t i = 0; i < std::min(found.size(), expected.size()); ++i)
        if (std::isinf(expected[i]) && found[i] == expected[i]) found[i] = expected[i] = 0;
    return close(found, expected, allowed);
}

/// Parts as attention may give them: rows without a key in some parts, in all parts (row 3), lse of
/// very different size.
std::vector<reference::AttentionResult> random_parts(size_t count, size_t rows, size_t d,
                                                     DType dtype, float lse_scale) {
    std::vector<reference::AttentionResult> parts;
    for (size_t i = 0; i < count; ++i) {
        const auto seed = static_cast<uint32_t>(2 * i);
        reference::AttentionResult part{
            testing::random_values(rows * d, seed + 1, dtype),
            testing::random_values(rows, seed + 2, DType::f32, lse_scale)};
        for (size_t row = 0; row < rows; ++row)
            if (row == 3 || (row + i) % 5 == 0) part.lse[row] = -kInf;
        parts.push_back(std::move(part));
    }
    return parts;
}

TEST(Merge, AgreesWithReference) {
    vk::Stream stream(device());
    constexpr int64_t rows = 37, d = 24;
    for (const DType dtype : testing::kStorage)
        for (const size_t count : {1, 2, 3, 4, 5, 8, 9, 31})
            for (const float lse_scale : {1.f, 300.f}) {
                SCOPED_TRACE(
                    fmt::format("{} {} parts, lse × {}", name_of(dtype), count, lse_scale));
                const auto host = random_parts(count, rows, d, dtype, lse_scale);
                std::vector<AttentionPart> parts;
                for (const auto& part : host)
                    parts.push_back({upload(stream, part.o, {1, rows, d}, dtype),
                                     upload(stream, part.lse, {1, rows}, DType::f32)});
                testing::poison(stream, {1, rows, d}, dtype);
                const AttentionPart found = merge(stream, parts);
                const auto expected = reference::merge(host, d);
                EXPECT_EQ(found.o.shape(), (Shape{1, rows, d}));
                EXPECT_TRUE(close(to_host(stream, found.o), expected.o, testing::tolerance(dtype)));
                EXPECT_TRUE(lse_close(to_host(stream, found.lse), expected.lse, {1e-5f, 1e-6f}));
            }
}

TEST(Merge, RowsWithoutKeysCountForNothingWhateverTheirOutput) {
    vk::Stream stream(device());
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const auto part = [&](float o, float lse) {
        return AttentionPart{upload(stream, std::vector<float>(4, o), {1, 4}, DType::f32),
                             upload(stream, std::vector<float>{lse}, {1}, DType::f32)};
    };
    const auto both = merge(stream, std::vector{part(nan, -kInf), part(2, -1e4f)});
    EXPECT_EQ(to_host(stream, both.o), std::vector<float>(4, 2));
    EXPECT_EQ(to_host(stream, both.lse), std::vector<float>{-1e4f});
    const auto none = merge(stream, std::vector<AttentionPart>(6, part(nan, -kInf)));
    EXPECT_EQ(to_host(stream, none.o), std::vector<float>(4, 0));
    EXPECT_EQ(to_host(stream, none.lse), std::vector<float>{-kInf});
}

// Sums between dispatches stay fp32 whatever the storage: a thousand parts cost fp16 one rounding.
TEST(Merge, ManyPartsAreAsExactAsFew) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage) {
        const std::vector<float> o = testing::random_values(8 * 4, 1, dtype);
        const std::vector<float> lse = testing::random_values(8, 2, DType::f32, 50);
        const AttentionPart part{upload(stream, o, {8, 4}, dtype),
                                 upload(stream, lse, {8}, DType::f32)};
        const auto found = merge(stream, std::vector<AttentionPart>(1000, part));
        const float one_rounding = dtype == DType::f16 ? 5e-4f : 2e-5f;
        EXPECT_TRUE(close(to_host(stream, found.o), o, {0, one_rounding}));
        std::vector<float> expected;
        for (const float value : lse) expected.push_back(value + std::log(1000.f));
        EXPECT_TRUE(close(to_host(stream, found.lse), expected, {2e-5f, 3e-7f}));
    }
}

/// The keys of every n-th block of eleven.
struct Share {
    uint32_t n, i;
    bool keeps(uint32_t, uint32_t k) const { return k / 11 % n == i; }
    Grid grid() const { return {}; }
    std::string key() const { return fmt::format("share:{}:{}", n, i); }
};

TEST(Merge, IsAttentionOverTheUnionOfTheKeys) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage)
        for (const uint32_t n : {2, 7}) {
            SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), n));
            const reference::AttentionShape s{
                .batch = 2, .heads = 4, .kv_heads = 2, .q_len = 45, .kv_len = 60, .head_dim = 64};
            const auto q = testing::input(stream, {2, 4, 45, 64}, 1, dtype);
            const auto k = testing::input(stream, {2, 2, 60, 64}, 2, dtype);
            const auto v = testing::input(stream, {2, 2, 60, 64}, 3, dtype);
            std::vector<AttentionPart> parts(n);
            for (uint32_t i = 0; i < n; ++i)
                parts[i].o = attention(stream, q.device, k.device, v.device, Share{n, i},
                                       {.lse = &parts[i].lse});
            const auto found = merge(stream, parts);
            const auto expected = reference::attention(q.host, k.host, v.host, dense(), s);
            EXPECT_TRUE(close(to_host(stream, found.o), expected.o, testing::tolerance(dtype)));
            EXPECT_TRUE(close(to_host(stream, found.lse), expected.lse, {1e-4f, 2e-6f}));
        }
}

std::string refusal(vk::Stream& stream, const std::vector<AttentionPart>& parts) {
    try {
        merge(stream, parts);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

TEST(Merge, ClearErrors) {
    vk::Stream stream(device());
    const auto with = [&](Shape o, Shape lse, DType o_type = DType::f32,
                          DType lse_type = DType::f32) {
        return AttentionPart{empty(device(), std::move(o), o_type),
                             empty(device(), std::move(lse), lse_type)};
    };
    const auto good = with({3, 8}, {3});
    EXPECT_THAT(refusal(stream, {}), HasSubstr("found none"));
    EXPECT_THAT(refusal(stream, {good, {}}), HasSubstr("part 1 lacks"));
    EXPECT_THAT(refusal(stream, {with({3, 6}, {3})}), HasSubstr("found (3, 6)"));
    EXPECT_THAT(refusal(stream, {good, with({3, 4}, {3})}), HasSubstr("found f32 (3, 4)"));
    EXPECT_THAT(refusal(stream, {good, with({3, 8}, {3}, DType::f16)}), HasSubstr("found f16"));
    EXPECT_THAT(refusal(stream, {good, with({3, 8}, {4})}), HasSubstr("found f32 (4)"));
    EXPECT_THAT(refusal(stream, {with({3, 8}, {3}, DType::f32, DType::f16)}),
                HasSubstr("f32 (3) expected, found f16"));
    EXPECT_THAT(refusal(stream, {with({3, 8}, {3}, DType::i32)}), HasSubstr("found i32"));
}

TEST(RangeMass, IsTheShareOfTheReferenceMap) {
    vk::Stream stream(device());
    for (const DType dtype : testing::kStorage)
        for (const float logits : {1.f, 30.f})
            for (const auto& [begin, end] :
                 {std::pair{0u, 1u}, {0u, 50u}, {16u, 32u}, {13u, 47u}, {49u, 50u}}) {
                SCOPED_TRACE(
                    fmt::format("{} × {}: keys {} to {}", name_of(dtype), logits, begin, end));
                const auto q = testing::input(stream, {1, 4, 21, 16}, 1, dtype, logits);
                const auto k = testing::input(stream, {1, 2, 50, 16}, 2, dtype);
                const auto found = to_host(
                    stream, range_mass(stream, q.device, k.device, {begin, end}, {.scale = 0.3f}));
                // v = 1 on the range and 0 elsewhere: o is the mass.
                std::vector<float> v(k.host.size());
                for (size_t i = 0; i < v.size(); ++i) {
                    const size_t token = i / 16 % 50;
                    v[i] = token >= begin && token < end;
                }
                const auto map = reference::attention(q.host, k.host, v, dense(),
                                                      {.heads = 4,
                                                       .kv_heads = 2,
                                                       .q_len = 21,
                                                       .kv_len = 50,
                                                       .head_dim = 16,
                                                       .scale = 0.3f});
                std::vector<float> expected;
                for (size_t i = 0; i < map.o.size(); i += 16) expected.push_back(map.o[i]);
                EXPECT_TRUE(close(found, expected, {2e-5f, 2e-5f}));
            }
}

TEST(RangeMass, OfLses) {
    vk::Stream stream(device());
    const std::vector<float> range{0, -2, -kInf, -kInf, 5, 1e4f},
        all{0, 1, 3, -kInf, 4.9999f, 1e4f};
    const auto mass = to_host(stream, range_mass(stream, upload(stream, range, {2, 3}, DType::f32),
                                                 upload(stream, all, {2, 3}, DType::f32)));
    auto expected = reference::range_mass(range, all);
    expected[4] = 1;  // rounded above all: no share is more than everything
    EXPECT_TRUE(close(mass, expected, {1e-7f, 1e-6f}));
}

TEST(RangeMass, ClearErrors) {
    vk::Stream stream(device());
    const Tensor x = empty(device(), {1, 1, 8, 8}, DType::f32);
    const auto refused = [&](auto call) -> std::string {
        try {
            call();
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_THAT(refused([&] { range_mass(stream, x, x, {3, 3}); }), HasSubstr("1 to 8 keys"));
    EXPECT_THAT(refused([&] { range_mass(stream, x, x, {3, 9}); }), HasSubstr("found 3 to 9"));
    EXPECT_THAT(refused([&] { range_mass(stream, x, Tensor(), {0, 1}); }), HasSubstr("k (batch"));
    EXPECT_THAT(refused([&] { range_mass(stream, x, Tensor()); }), HasSubstr("two f32"));
    EXPECT_THAT(refused([&] {
                    range_mass(stream, x, x.reshape({8, 8}));
                }),
                HasSubstr("(1, 1, 8, 8) expected"));
}

}  // namespace
}  // namespace fovea
