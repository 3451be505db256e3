#include <gtest/gtest.h>

#include "backend/error.h"
#include "backend/ops/attention.h"
#include "backend/reference/attention.h"
#include "tests/backend/ops_testing.h"

/// Keys in parts whose results are merged: few queries, many keys.
namespace fovea {
namespace {

using testing::device;

struct Problem {
    reference::AttentionShape shape;
    Pattern pattern = dense();
};

void expect_reference(const Problem& problem, uint32_t parts, DType dtype, AttentionPath path) {
    const reference::AttentionShape& s = problem.shape;
    const int64_t b = s.batch, h = s.heads, kh = s.kv_heads, d = s.head_dim;
    const auto values = [&](int64_t count, uint32_t seed) {
        return testing::random_values(static_cast<size_t>(count), seed, dtype);
    };
    const auto q = values(b * h * s.q_len * d, 1), k = values(b * kh * s.kv_len * d, 2),
               v = values(b * kh * s.kv_len * s.v_dim, 3);
    const auto expected = reference::attention(q, k, v, problem.pattern, s);
    vk::Stream stream(device());
    const Tensor tq = upload(stream, q, {b, h, s.q_len, d}, dtype),
                 tk = upload(stream, k, {b, kh, s.kv_len, d}, dtype),
                 tv = upload(stream, v, {b, kh, s.kv_len, s.v_dim}, dtype);
    Tensor lse;
    const AttentionOptions options{.lse = &lse, .path = path, .key_parts = parts};
    testing::poison(stream, {parts, b, h, s.q_len, s.v_dim}, dtype);
    const Tensor o = attention(stream, tq, tk, tv, problem.pattern, options);
    EXPECT_TRUE(testing::close(to_host(stream, o), expected.o, testing::tolerance(dtype)));
    EXPECT_TRUE(testing::close(to_host(stream, lse), expected.lse, {1e-4f, 2e-6f}));
    if (h > 1 || b > 1) return;  // of one head the order of axes makes no difference
    const auto tokens_first = [&](const Tensor& x) {
        return x.reshape({1, x.dim(2), 1, x.dim(3)});
    };
    const Tensor turned =
        attention(stream, tokens_first(tq), tokens_first(tk), tokens_first(tv), problem.pattern,
                  {.path = path, .layout = HeadLayout::tokens_first, .key_parts = parts});
    EXPECT_EQ(turned.shape(), (Shape{1, s.q_len, 1, s.v_dim}));
    EXPECT_EQ(to_host(stream, turned), to_host(stream, o));
}

reference::AttentionShape shape(uint32_t batch, uint32_t heads, uint32_t q_len, uint32_t kv_len) {
    return {.batch = batch,
            .heads = heads,
            .kv_heads = heads > 1 ? heads / 2 : 1,
            .q_len = q_len,
            .kv_len = kv_len,
            .head_dim = 24,
            .v_dim = 24};
}

class AttentionParts : public ::testing::TestWithParam<AttentionPath> {};
INSTANTIATE_TEST_SUITE_P(Paths, AttentionParts,
                         ::testing::Values(AttentionPath::scalar, AttentionPath::khr,
                                           AttentionPath::nv2),
                         [](const auto& path) { return std::string(name_of(path.param)); });

// More parts than blocks leave some without a key.
TEST_P(AttentionParts, EqualReference) {
    const testing::Environment emulate("FOVEA_EMULATE_MATRICES", "1");
    if (device().info().fp16_matrices.empty() && GetParam() == AttentionPath::khr)
        GTEST_SKIP() << "emulated matrices compile for long, and nv2 walks and writes alike";
    for (const auto& [path, support] : attention_paths(device().info(), DType::f16)) {
        if (path != GetParam()) continue;
        if (!support.ok) GTEST_SKIP() << support.why;
        for (const uint32_t parts : {2, 3, 40}) {
            SCOPED_TRACE(parts);
            expect_reference({shape(2, 4, 10, 171)}, parts, DType::f16, path);
        }
        // Emulated matrices compile for long.
        if (path != AttentionPath::scalar && device().info().fp16_matrices.empty()) return;
        expect_reference({shape(1, 1, 7, 333)}, 3, DType::f16, path);
        expect_reference(
            {shape(1, 2, 96, 96), neighborhood({.shape = {8, 12}}, {.window = {3, 5}})}, 3,
            DType::f16, path);
    }
}

TEST(AttentionParts, OfOneLayoutAndWithoutPerturbation) {
    vk::Stream stream(device());
    const Tensor x = empty(device(), {1, 8, 2, 16}, DType::f32);
    Tensor lse;
    EXPECT_THROW(attention(stream, x, x, x, dense(),
                           {.lse = &lse, .layout = HeadLayout::tokens_first, .key_parts = 2}),
                 Error);
    const Tensor u = empty(device(), {8}, DType::f32);
    EXPECT_THROW(attention(stream, x, x, x, dense(), {.perturb = u, .key_parts = 2}), Error);
}

}  // namespace
}  // namespace fovea
