#include <gmock/gmock.h>

#include "backend/error.h"
#include "backend/ops/attention.h"
#include "backend/reference/attention.h"
#include "tests/backend/ops_testing.h"

/// Attention with int8 scores against the reference in fp32: close enough, and not the same as with
/// scores of fp16.
namespace fovea {
namespace {

using testing::device;
using testing::Environment;

struct Case {
    const char* name;
    Pattern pattern;
    reference::AttentionShape shape;
    float k_offset = 0;      ///< the same of all keys, by channel in turn positive and negative
    bool modifiers = false;  ///< multipliers by label, and perturbed heads
    AttentionPath emulated;  ///< the one path that runs it on devices without matrix units
};

const std::vector<Case>& cases() {
    const reference::AttentionShape gqa{
        .batch = 2, .heads = 4, .kv_heads = 2, .q_len = 97, .kv_len = 131, .head_dim = 64};
    reference::AttentionShape window{
        .heads = 2, .kv_heads = 2, .q_len = 91, .kv_len = 91, .head_dim = 72, .extra_len = 21};
    const Pattern boxes = neighborhood({.shape = {7, 13}}, {.window = {5, 7}});
    static const std::vector<Case> list = {
        {"gqa_ragged", dense(), gqa, 0, false, AttentionPath::khr},
        {"gqa_offset", dense(), gqa, 20, false, AttentionPath::khr},
        {"window_72_modified", boxes, window, 8, true, AttentionPath::nv2},
        {"head_dim_128",
         dense(),
         {.heads = 1, .kv_heads = 1, .q_len = 33, .kv_len = 70, .head_dim = 128, .scale = -0.09f},
         4,
         false,
         AttentionPath::nv2},
    };
    return list;
}

std::vector<float> keys_of(const reference::AttentionShape& s, uint32_t len, float offset,
                           uint32_t seed) {
    auto k = testing::random_values(size_t{s.batch} * s.kv_heads * len * s.head_dim, seed);
    for (size_t i = 0; i < k.size(); ++i)
        k[i] = half_to_float(float_to_half(k[i] + (i % 2 ? offset : -offset)));
    return k;
}

double relative_l2(std::span<const float> found, std::span<const float> expected) {
    double off = 0, all = 0;
    for (size_t i = 0; i < found.size(); ++i) {
        off += (found[i] - expected[i]) * (found[i] - expected[i]);
        all += expected[i] * expected[i];
    }
    return std::sqrt(off / all);
}

class AttentionInt8 : public ::testing::TestWithParam<std::tuple<size_t, AttentionPath>> {};

TEST_P(AttentionInt8, IsCloseToTheReference) {
    const auto [index, path] = GetParam();
    const Case& c = cases()[index];
    const auto& s = c.shape;
    const Environment emulated("FOVEA_EMULATE_MATRICES", "1");
    for (const auto& [each, support] :
         attention_paths(device().info(), DType::f16, ScorePrecision::int8))
        if (each == path && !support.ok) GTEST_SKIP() << name_of(path) << ": " << support.why;
    if (device().info().fp16_matrices.empty() && path != c.emulated)
        GTEST_SKIP() << "emulated matrices take seconds a pipeline: another case runs this path";

    const int64_t b = s.batch, h = s.heads, hkv = s.kv_heads, nq = s.q_len, nk = s.kv_len,
                  e = s.extra_len, d = s.head_dim;
    const auto values = [&](int64_t count, uint32_t seed) {
        return testing::random_values(static_cast<size_t>(count), seed, DType::f16);
    };
    const auto q = values(b * h * nq * d, 1), v = values(b * hkv * nk * d, 3),
               v_extra = values(b * hkv * e * d, 5);
    const auto k = keys_of(s, s.kv_len, c.k_offset, 2),
               k_extra = keys_of(s, s.extra_len, c.k_offset, 4);
    vk::Stream stream(device());
    Tensor lse;
    AttentionOptions options{.scale = s.scale, .path = path, .scores = ScorePrecision::int8};
    if (e > 0) {
        options.k_extra = upload(stream, k_extra, {b, hkv, e, d}, DType::f16);
        options.v_extra = upload(stream, v_extra, {b, hkv, e, d}, DType::f16);
    }
    reference::AttentionModifiers modifiers;
    const std::vector<float> perturb{0.3f, 0}, multipliers{1, 0.5f, 0.25f, 0.875f};
    std::vector<int32_t> q_labels, k_labels;
    if (c.modifiers) {
        for (int64_t i = 0; i < nq; ++i) q_labels.push_back(i % 5 == 0);
        for (int64_t j = 0; j < nk; ++j) k_labels.push_back(j % 3 == 0);
        options.perturb = upload(stream, perturb, {h}, DType::f32);
        options.multipliers = upload(stream, multipliers, {2, 2}, DType::f32);
        options.q_labels = upload(stream, q_labels, {nq});
        options.k_labels = upload(stream, k_labels, {nk});
        modifiers = {.perturb = perturb,
                     .q_labels = q_labels,
                     .k_labels = k_labels,
                     .multipliers = multipliers,
                     .key_label_count = 2};
    }
    const auto expected = reference::attention(q, k, v, c.pattern, s, k_extra, v_extra, modifiers);
    testing::poison(stream, {b, h, nq, d}, DType::f16);
    const Tensor tq = upload(stream, q, {b, h, nq, d}, DType::f16),
                 tk = upload(stream, k, {b, hkv, nk, d}, DType::f16),
                 tv = upload(stream, v, {b, hkv, nk, d}, DType::f16);
    const auto o = to_host(stream, attention(stream, tq, tk, tv, c.pattern, options));
    const double error = relative_l2(o, expected.o);
    EXPECT_LE(error, 2e-2);
    EXPECT_GE(error, 1e-3) << "scores of fp16 are better than that";

    // With the LSE, which asks for q·mean: the same o, bit by bit.
    options.lse = &lse;
    EXPECT_EQ(to_host(stream, attention(stream, tq, tk, tv, c.pattern, options)), o);
    EXPECT_TRUE(testing::close(to_host(stream, lse), expected.lse, {2e-2f, 1e-5f}));
    if (c.k_offset == 20) {  // one more pipeline
        EXPECT_EQ(to_host(stream, attention_lse(stream, tq, tk, c.pattern, options)),
                  to_host(stream, lse));
    }
    std::printf("%s %s: relative L2 error %.2e\n", c.name, name_of(path), error);
}

INSTANTIATE_TEST_SUITE_P(Cases, AttentionInt8,
                         ::testing::Combine(::testing::Range(size_t{0}, cases().size()),
                                            ::testing::Values(AttentionPath::khr,
                                                              AttentionPath::nv2)),
                         [](const auto& info) {
                             return fmt::format("{}_{}", cases()[std::get<0>(info.param)].name,
                                                name_of(std::get<1>(info.param)));
                         });

/// As without int8: rows that do not see what is not finite are as if it were 0, in full and in
/// partial blocks; a row that sees it is NaN.
TEST(AttentionInt8Unseen, NothingLeaksAndNothingIsHidden) {
    constexpr uint32_t kTokens = 131, kDim = 64, kBad = 33, kBadQuery = 70;
    const Pattern window = neighborhood({.shape = {kTokens}}, {.window = {75}});
    const Environment emulated("FOVEA_EMULATE_MATRICES", "1");
    for (const auto& [path, support] :
         attention_paths(device().info(), DType::f16, ScorePrecision::int8)) {
        if (!support.ok) continue;
        if (device().info().fp16_matrices.empty() && path != AttentionPath::khr)
            continue;  // emulated: that pipeline is there already
        SCOPED_TRACE(name_of(path));
        auto q = testing::random_values(kTokens * kDim, 1, DType::f16);
        auto k = testing::random_values(kTokens * kDim, 2, DType::f16);
        const auto v = testing::random_values(kTokens * kDim, 3, DType::f16);
        for (uint32_t c = 0; c < kDim; ++c) k[kBad * kDim + c] = 0;
        const auto clean = reference::attention(
            q, k, v, window, {.q_len = kTokens, .kv_len = kTokens, .head_dim = kDim});
        k[kBad * kDim + 9] = std::numeric_limits<float>::infinity();
        q[kBadQuery * kDim + 40] = std::numeric_limits<float>::quiet_NaN();
        vk::Stream stream(device());
        const Shape shape{1, 1, kTokens, kDim};
        const auto o = to_host(stream, attention(stream, upload(stream, q, shape, DType::f16),
                                                 upload(stream, k, shape, DType::f16),
                                                 upload(stream, v, shape, DType::f16), window,
                                                 {.path = path, .scores = ScorePrecision::int8}));
        uint32_t blind = 0;
        for (uint32_t i = 0; i < kTokens; ++i) {
            const std::span row = std::span(o).subspan(i * kDim, kDim);
            const bool reached = window.keeps(i, kBad) || i == kBadQuery;
            blind += !reached;
            if (reached)
                for (const float x : row) EXPECT_FALSE(std::isfinite(x)) << "query " << i;
            else
                EXPECT_LE(relative_l2(row, std::span(clean.o).subspan(i * kDim, kDim)), 5e-2)
                    << "query " << i;
        }
        EXPECT_GT(blind, 30u);
    }
}

std::string refusal(const AttentionOptions& options, DType dtype) {
    try {
        vk::Stream stream(device());
        const auto values = testing::random_values(16 * 64, 1);
        const Tensor x = upload(stream, values, {1, 1, 16, 64}, dtype);
        attention(stream, x, x, x, dense(), options);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

// One key less its mean is 0, and so are queries of nothing: scales with nothing to scale.
TEST(AttentionInt8Unseen, NothingToScale) {
    const Environment emulated("FOVEA_EMULATE_MATRICES", "1");
    for (const auto& [path, support] :
         attention_paths(device().info(), DType::f16, ScorePrecision::int8)) {
        if (path != AttentionPath::nv2) continue;
        if (!support.ok) GTEST_SKIP() << support.why;
        const int64_t d = 128;
        for (const int64_t keys : {1, 70}) {
            SCOPED_TRACE(keys);
            const std::vector<float> q(static_cast<size_t>(33 * d), keys == 1 ? 1.0f : 0.0f);
            const auto k = testing::random_values(static_cast<size_t>(keys * d), 1, DType::f16),
                       v = testing::random_values(static_cast<size_t>(keys * d), 2, DType::f16);
            const auto expected = reference::attention(q, k, v, dense(),
                                                       {.heads = 1,
                                                        .kv_heads = 1,
                                                        .q_len = 33,
                                                        .kv_len = static_cast<uint32_t>(keys),
                                                        .head_dim = 128});
            vk::Stream stream(device());
            Tensor lse;
            const AttentionOptions options{
                .lse = &lse, .path = path, .scores = ScorePrecision::int8};
            const Tensor o =
                attention(stream, upload(stream, q, {1, 1, 33, d}, DType::f16),
                          upload(stream, k, {1, 1, keys, d}, DType::f16),
                          upload(stream, v, {1, 1, keys, d}, DType::f16), dense(), options);
            EXPECT_TRUE(
                testing::close(to_host(stream, o), expected.o, testing::tolerance(DType::f16)));
            EXPECT_TRUE(testing::close(to_host(stream, lse), expected.lse, {1e-3f, 1e-3f}));
        }
    }
}

TEST(AttentionInt8Path, WhatCannotRunItSaysWhy) {
    using ::testing::AllOf;
    using ::testing::HasSubstr;
    if (std::getenv("FOVEA_PATH")) GTEST_SKIP() << "FOVEA_PATH is set";
    AttentionOptions options{.scores = ScorePrecision::int8};
    EXPECT_THAT(refusal(options, DType::f32), HasSubstr("found f32"));
    if (device().info().fp16_matrices.empty()) {
        EXPECT_THAT(refusal(options, DType::f16),
                    AllOf(HasSubstr("no path with int8 scores"), HasSubstr("khr: "),
                          HasSubstr("scalar: int8 scores are products of matrix units")));
    }
    options.path = AttentionPath::scalar;
    EXPECT_THAT(refusal(options, DType::f16), HasSubstr("products of matrix units"));
}

}  // namespace
}  // namespace fovea
