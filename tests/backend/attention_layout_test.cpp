#include <gtest/gtest.h>

#include <cmath>

#include "backend/error.h"
#include "backend/ops/attention.h"
#include "backend/reference/attention.h"
#include "tests/backend/ops_testing.h"

/// Attention of tensors as products write them: tokens first, q, k and v side by side.
namespace fovea {
namespace {

using testing::device;

struct Packed {
    Tensor rows;                   ///< (batch, tokens, sum of heads · dims)
    std::vector<Tensor> of_parts;  ///< (batch, tokens, heads, dim), views of it
};

struct Part {
    std::vector<float> values;  ///< (batch, heads, tokens, dim)
    int64_t heads, dim;
};

Packed packed(vk::Stream& stream, const std::vector<Part>& parts, int64_t batch, int64_t tokens,
              DType dtype) {
    int64_t width = 0;
    for (const Part& part : parts) width += part.heads * part.dim;
    std::vector<float> rows(static_cast<size_t>(batch * tokens * width));
    int64_t begin = 0;
    for (const Part& p : parts) {
        for (int64_t b = 0; b < batch; ++b)
            for (int64_t h = 0; h < p.heads; ++h)
                for (int64_t t = 0; t < tokens; ++t)
                    std::copy_n(p.values.begin() + ((b * p.heads + h) * tokens + t) * p.dim, p.dim,
                                rows.begin() + (b * tokens + t) * width + begin + h * p.dim);
        begin += p.heads * p.dim;
    }
    Packed result{upload(stream, rows, {batch, tokens, width}, dtype), {}};
    begin = 0;
    for (const Part& p : parts) {
        result.of_parts.push_back(
            result.rows.columns(begin, p.heads * p.dim).reshape({batch, tokens, p.heads, p.dim}));
        begin += p.heads * p.dim;
    }
    return result;
}

/// Everything that addresses q, k, v, extra keys or o: batches, shared keys, perturbed heads.
void expect_reference(const reference::AttentionShape& s, const Pattern& pattern, DType dtype,
                      AttentionPath path, ScorePrecision scores = ScorePrecision::stored) {
    const int64_t b = s.batch, h = s.heads, kh = s.kv_heads, n = s.q_len, e = s.extra_len,
                  d = s.head_dim, dv = s.v_dim;
    const auto values = [&](int64_t count, uint32_t seed) {
        return testing::random_values(static_cast<size_t>(count), seed, dtype);
    };
    const Part q{values(b * h * n * d, 1), h, d}, k{values(b * kh * n * d, 2), kh, d},
        v{values(b * kh * n * dv, 3), kh, dv}, k_extra{values(b * kh * e * d, 4), kh, d},
        v_extra{values(b * kh * e * dv, 5), kh, dv};
    std::vector<float> perturb(s.heads, 0.3f);
    perturb[0] = 1;
    const auto expected =
        reference::attention(q.values, k.values, v.values, pattern, s, k_extra.values,
                             v_extra.values, {.perturb = perturb});
    vk::Stream stream(device());
    const Packed own = packed(stream, {q, k, v}, b, n, dtype);
    const Packed extra = packed(stream, {k_extra, v_extra}, b, e, dtype);
    Tensor lse;
    AttentionOptions options{
        .lse = &lse, .path = path, .scores = scores, .layout = HeadLayout::tokens_first};
    options.k_extra = extra.of_parts[0];
    options.v_extra = extra.of_parts[1];
    options.perturb = upload(stream, perturb, {h}, DType::f32);
    testing::poison(stream, {b, n, h, dv}, dtype);
    const Tensor o =
        attention(stream, own.of_parts[0], own.of_parts[1], own.of_parts[2], pattern, options);
    EXPECT_EQ(o.shape(), (Shape{b, n, h, dv}));
    const auto of_head = to_host(stream, o);
    std::vector<float> found(of_head.size());
    for (int64_t i = 0; i < b; ++i)
        for (int64_t t = 0; t < n; ++t)
            for (int64_t head = 0; head < h; ++head)
                std::copy_n(of_head.begin() + ((i * n + t) * h + head) * dv, dv,
                            found.begin() + ((i * h + head) * n + t) * dv);
    if (scores == ScorePrecision::int8) {
        double difference = 0, whole = 0;
        for (size_t i = 0; i < found.size(); ++i) {
            difference += std::pow(double{found[i]} - expected.o[i], 2);
            whole += std::pow(double{expected.o[i]}, 2);
        }
        EXPECT_LT(std::sqrt(difference / whole), 0.03);
        return;
    }
    EXPECT_TRUE(testing::close(found, expected.o, testing::tolerance(dtype)));
    EXPECT_EQ(lse.shape(), (Shape{b, h, n}));
    EXPECT_TRUE(testing::close(to_host(stream, lse), expected.lse, {1e-4f, 2e-6f}));
}

const reference::AttentionShape kShape{.batch = 2,
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .q_len = 42,
                                       .kv_len = 42,
                                       .head_dim = 24,
                                       .extra_len = 19,
                                       .v_dim = 24};

class AttentionLayout : public ::testing::TestWithParam<AttentionPath> {};
INSTANTIATE_TEST_SUITE_P(Paths, AttentionLayout,
                         ::testing::Values(AttentionPath::scalar, AttentionPath::khr,
                                           AttentionPath::nv2),
                         [](const auto& path) { return std::string(name_of(path.param)); });

TEST_P(AttentionLayout, TokensFirstEqualsReference) {
    const testing::Environment emulate("FOVEA_EMULATE_MATRICES", "1");
    if (device().info().fp16_matrices.empty() && GetParam() == AttentionPath::khr)
        GTEST_SKIP() << "emulated matrices compile for long, and nv2 reads and writes alike";
    const Pattern pattern = neighborhood({.shape = {6, 7}}, {.window = {3, 5}});
    bool run = false;
    for (const DType dtype : {DType::f32, DType::f16})
        for (const auto& [path, support] : attention_paths(device().info(), dtype)) {
            if (path != GetParam() || !support.ok) continue;
            reference::AttentionShape shape = kShape;
            if (dtype == DType::f32) shape.v_dim = 16;
            expect_reference(shape, pattern, dtype, path);
            run = true;
        }
    if (!run) GTEST_SKIP() << name_of(GetParam()) << " does not run here";
}

TEST(AttentionLayout, Int8Scores) {
    const testing::Environment emulate("FOVEA_EMULATE_MATRICES", "1");
    for (const auto& [path, support] :
         attention_paths(device().info(), DType::f16, ScorePrecision::int8)) {
        if (!support.ok) continue;
        expect_reference(kShape, dense(), DType::f16, path, ScorePrecision::int8);
        return;
    }
    GTEST_SKIP() << "no path with int8 scores";
}

TEST(AttentionLayout, RefusesViewsThatItCannotRead) {
    vk::Stream stream(device());
    const Tensor rows = empty(device(), {1, 8, 2, 24}, DType::f32), part = rows.columns(0, 8);
    EXPECT_THROW(attention(stream, part, part, part, dense()), Error);
    const Tensor odd = empty(device(), {1, 8, 2 * 8 + 4}, DType::f32).columns(0, 16);
    const Tensor heads = odd.reshape({1, 8, 2, 8});
    EXPECT_THROW(
        attention(stream, heads, heads, heads, dense(), {.layout = HeadLayout::tokens_first}),
        Error);
}

}  // namespace
}  // namespace fovea
