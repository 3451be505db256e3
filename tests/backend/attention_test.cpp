#include "backend/ops/attention.h"

#include <gmock/gmock.h>

#include "backend/error.h"
#include "backend/reference/attention.h"
#include "tests/testing.h"

namespace fovea {
namespace {

using testing::device;

/// No query of an odd row sees anything.
struct OddRowsBlind {
    uint32_t tokens;
    bool keeps(uint32_t q, uint32_t k) const { return q % 2 == 0 && (q + k) % 3 != 0; }
    Grid grid() const { return {.shape = {tokens}}; }
    std::string key() const { return "odd_rows_blind"; }
};

struct Case {
    const char* name;
    Pattern pattern;
    reference::AttentionShape shape;
    float logits = 1;  ///< scale of q: large logits overflow a naive softmax
};

/// Shape of self attention with as many key heads as query heads.
reference::AttentionShape self(uint32_t heads, uint32_t tokens, uint32_t head_dim) {
    return {
        .heads = heads, .kv_heads = heads, .q_len = tokens, .kv_len = tokens, .head_dim = head_dim};
}

const std::vector<Case>& cases() {
    static const Grid square{.shape = {16, 16}};
    static const std::vector<Case> list = {
        {"basic", dense(), self(4, 256, 64)},
        {"one_token", dense(), self(2, 1, 64)},
        {"prime_tokens", dense(), self(3, 97, 64)},
        {"one_key", dense(), {.heads = 2, .kv_heads = 2, .q_len = 37, .kv_len = 1, .head_dim = 64}},
        {"cross", dense(), {.heads = 2, .kv_heads = 2, .q_len = 70, .kv_len = 33, .head_dim = 64}},
        {"gqa_batch",
         dense(),
         {.batch = 2, .heads = 6, .kv_heads = 2, .q_len = 50, .kv_len = 41, .head_dim = 64}},
        {"scale",
         dense(),
         {.heads = 1, .kv_heads = 1, .q_len = 20, .kv_len = 20, .head_dim = 64, .scale = 0.3f}},
        {"large_logits", dense(), self(2, 40, 64), 100},
        {"head_dim_8", dense(), self(2, 33, 8)},
        {"head_dim_72", dense(), self(2, 33, 72)},
        {"head_dim_80", neighborhood({.shape = {33}}, {.window = {9}}), self(2, 33, 80)},
        {"head_dim_128", neighborhood({.shape = {5, 7}}, {.window = {3, 4}}), self(2, 35, 128)},
        {"head_dim_256", dense(), self(1, 19, 256)},
        {"extra_dense",
         dense(),
         {.heads = 2, .kv_heads = 1, .q_len = 30, .kv_len = 21, .head_dim = 64, .extra_len = 1}},
        {"extra_window",
         neighborhood({.shape = {6, 7}}, {.window = {3, 5}}),
         {.batch = 2,
          .heads = 4,
          .kv_heads = 2,
          .q_len = 42,
          .kv_len = 42,
          .head_dim = 64,
          .extra_len = 19}},
        {"row_without_key", OddRowsBlind{45}, self(2, 45, 64)},
        {"window", neighborhood(square, {.window = {7, 7}}), self(2, 256, 64)},
        {"window_even", neighborhood({.shape = {15, 17}}, {.window = {6, 8}}), self(1, 255, 64)},
        {"window_wide", neighborhood({.shape = {9, 11}}, {.window = {9, 8}}), self(1, 99, 64)},
        {"window_strided", neighborhood(square, {.window = {8, 6}, .stride = {8, 3}}),
         self(1, 256, 64)},
        {"window_dilated", neighborhood({.shape = {101}}, {.window = {9}, .dilation = {7}}),
         self(1, 101, 64)},
        {"window_causal",
         neighborhood({.shape = {127}}, {.window = {16}, .stride = {4}, .causal = {true}}),
         self(1, 127, 64)},
        {"window_3d",
         neighborhood({.shape = {4, 6, 7}},
                      {.window = {2, 3, 5}, .dilation = {2, 1, 1}, .causal = {true, false, false}}),
         self(1, 168, 64)},
    };
    return list;
}

class Attention : public ::testing::TestWithParam<std::tuple<size_t, DType, AttentionPath>> {};

TEST_P(Attention, EqualsReference) {
    const auto [index, dtype, path] = GetParam();
    const Case& c = cases()[index];
    const auto& s = c.shape;
    for (const auto& [candidate, support] : attention_paths(device().info()))
        if (candidate == path && !support.ok) GTEST_SKIP() << name_of(path) << ": " << support.why;

    const int64_t b = s.batch, h = s.heads, hkv = s.kv_heads, nq = s.q_len, nk = s.kv_len,
                  e = s.extra_len, d = s.head_dim;
    const auto values = [&, type = dtype](int64_t count, uint32_t seed, float scale) {
        return testing::random_values(static_cast<size_t>(count), seed, type, scale);
    };
    const auto q = values(b * h * nq * d, 1, c.logits), k = values(b * hkv * nk * d, 2, 1),
               v = values(b * hkv * nk * d, 3, 1);
    const auto k_extra = values(b * hkv * e * d, 4, 1), v_extra = values(b * hkv * e * d, 5, 1);
    const auto expected = reference::attention(q, k, v, c.pattern, s, k_extra, v_extra);

    vk::Stream stream(device());
    Tensor lse;
    AttentionOptions options{.scale = s.scale, .lse = &lse, .path = path};
    if (e > 0) {
        options.k_extra = upload(stream, k_extra, {b, hkv, e, d}, dtype);
        options.v_extra = upload(stream, v_extra, {b, hkv, e, d}, dtype);
    }
    {  // the pool hands this memory to the output: what the kernel does not write stays NaN
        const Tensor poison = empty(device(), {b, h, nq, d}, dtype);
        const Tensor lse_poison = empty(device(), {b, h, nq}, DType::f32);
        stream.fill(write(poison), 0xffffffff);
        stream.fill(write(lse_poison), 0xffffffff);
    }
    const Tensor o = attention(stream, upload(stream, q, {b, h, nq, d}, dtype),
                               upload(stream, k, {b, hkv, nk, d}, dtype),
                               upload(stream, v, {b, hkv, nk, d}, dtype), c.pattern, options);
    EXPECT_EQ(o.shape(), (Shape{b, h, nq, d}));
    EXPECT_TRUE(testing::close(to_host(stream, o), expected.o, testing::tolerance(dtype)));
    auto found = to_host(stream, lse), wanted = expected.lse;
    for (size_t i = 0; i < wanted.size(); ++i)  // −∞ − −∞ is NaN
        if (std::isinf(wanted[i]) && found[i] == wanted[i]) found[i] = wanted[i] = 0;
    EXPECT_TRUE(testing::close(found, wanted, {1e-4f, 2e-6f}));
}

INSTANTIATE_TEST_SUITE_P(Cases, Attention,
                         ::testing::Combine(::testing::Range(size_t{0}, cases().size()),
                                            ::testing::Values(DType::f32, DType::f16),
                                            ::testing::Values(AttentionPath::scalar,
                                                              AttentionPath::khr,
                                                              AttentionPath::nv2)),
                         [](const auto& info) {
                             return std::string(cases()[std::get<0>(info.param)].name) + "_" +
                                    name_of(std::get<1>(info.param)) + "_" +
                                    name_of(std::get<2>(info.param));
                         });

Tensor zeros(vk::Stream& stream, Shape shape, DType dtype = DType::f32) {
    Tensor tensor = empty(device(), std::move(shape), dtype);
    stream.fill(write(tensor), 0);
    return tensor;
}

std::string refusal(const Tensor& q, const Tensor& k, const Tensor& v, const Pattern& pattern,
                    vk::Stream& stream, const AttentionOptions& options = {}) {
    try {
        attention(stream, q, k, v, pattern, options);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

TEST(AttentionInput, ClearErrors) {
    using ::testing::HasSubstr;
    vk::Stream stream(device());
    const Tensor q = zeros(stream, {1, 4, 16, 8}), k = zeros(stream, {1, 2, 16, 8});
    const auto with = [&](Shape shape, DType dtype = DType::f32) {
        return zeros(stream, std::move(shape), dtype);
    };
    EXPECT_EQ(refusal(q, k, k, dense(), stream), "");
    EXPECT_THAT(refusal({}, k, k, dense(), stream), HasSubstr("must be there"));
    EXPECT_THAT(refusal(with({4, 16, 8}), k, k, dense(), stream), HasSubstr("head_dim) expected"));
    EXPECT_THAT(refusal(q, k, with({1, 2, 15, 8}), dense(), stream), HasSubstr("one shape"));
    EXPECT_THAT(refusal(with({1, 3, 16, 8}), k, k, dense(), stream), HasSubstr("multiple"));
    EXPECT_THAT(refusal(with({2, 4, 16, 8}), k, k, dense(), stream), HasSubstr("same batch"));
    const Tensor odd = with({1, 1, 4, 12}), wide = with({1, 1, 4, 264});
    EXPECT_THAT(refusal(odd, odd, odd, dense(), stream), HasSubstr("found 12"));
    EXPECT_THAT(refusal(wide, wide, wide, dense(), stream), HasSubstr("found 264"));
    EXPECT_THAT(refusal(with({1, 4, 16, 8}, DType::f16), k, k, dense(), stream),
                HasSubstr("all of f16"));
    EXPECT_THAT(refusal(q, k, k, neighborhood({.shape = {5, 5}}, {.window = {3, 3}}), stream),
                HasSubstr("has 25 tokens"));
    EXPECT_THAT(refusal(q, k, k, dense(), stream, {.k_extra = k}), HasSubstr("go together"));
    const Tensor extra = with({1, 4, 3, 8});
    EXPECT_THAT(refusal(q, k, k, dense(), stream, {.k_extra = extra, .v_extra = extra}),
                HasSubstr("(1, 2, n, 8)"));
}

TEST(AttentionPath, ForcedIneligiblePathIsAnErrorWithItsReason) {
    vk::Stream stream(device());
    const Tensor q = zeros(stream, {1, 1, 4, 8});
    for (const auto& [path, support] : attention_paths(device().info())) {
        const std::string by_option = refusal(q, q, q, dense(), stream, {.path = path});
        setenv("FOVEA_ATTENTION_PATH", name_of(path), 1);
        const std::string by_environment = refusal(q, q, q, dense(), stream);
        unsetenv("FOVEA_ATTENTION_PATH");
        EXPECT_EQ(by_option, by_environment);
        if (support.ok)
            EXPECT_EQ(by_option, "");
        else
            EXPECT_THAT(by_option, ::testing::HasSubstr(support.why));
    }
    setenv("FOVEA_ATTENTION_PATH", "fastest", 1);
    EXPECT_THAT(refusal(q, q, q, dense(), stream), ::testing::HasSubstr("\"fastest\""));
    unsetenv("FOVEA_ATTENTION_PATH");
}

TEST(AttentionList, OnePatternManyGridsAndStreams) {
    // The same key on other lengths must not find the first list; a list uploaded by a stream that
    // is gone must serve another.
    for (const int64_t tokens : {30, 70, 30}) {
        vk::Stream stream(device());
        const auto values = testing::random_values(static_cast<size_t>(tokens * 8), 1);
        const Tensor q = upload(stream, values, {1, 1, tokens, 8}, DType::f32);
        const Pattern pattern = OddRowsBlind{static_cast<uint32_t>(tokens)};
        const auto n = static_cast<uint32_t>(tokens);
        EXPECT_TRUE(testing::close(to_host(stream, attention(stream, q, q, q, pattern)),
                                   reference::attention(values, values, values, pattern,
                                                        {.q_len = n, .kv_len = n, .head_dim = 8})
                                       .o,
                                   testing::tolerance(DType::f32)));
    }
}

}  // namespace
}  // namespace fovea
