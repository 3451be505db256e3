#include "backend/ops/attention.h"

#include <limits>

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

const std::vector<Case>& cases() {
    static const Grid square{.shape = {16, 16}};
    static const std::vector<Case> list = {
        {"one_token", dense(), {.head_dim = 64}},
        {"prime_tokens", dense(), {.heads = 3, .q_len = 97, .kv_len = 97, .head_dim = 32}},
        {"basic",
         dense(),
         {.heads = 4, .kv_heads = 4, .q_len = 256, .kv_len = 256, .head_dim = 64}},
        {"gqa",
         dense(),
         {.batch = 2, .heads = 6, .kv_heads = 2, .q_len = 50, .kv_len = 50, .head_dim = 16}},
        {"cross", dense(), {.heads = 2, .kv_heads = 2, .q_len = 70, .kv_len = 33, .head_dim = 40}},
        {"window",
         neighborhood(square, {.window = {7, 7}}),
         {.heads = 2, .kv_heads = 2, .q_len = 256, .kv_len = 256, .head_dim = 64}},
        {"extra",
         neighborhood({.shape = {6, 7}}, {.window = {3, 5}}),
         {.heads = 4, .kv_heads = 2, .q_len = 42, .kv_len = 42, .head_dim = 24, .extra_len = 19}},
        {"row_without_key",
         OddRowsBlind{45},
         {.heads = 1, .q_len = 45, .kv_len = 45, .head_dim = 8}},
        {"large_logits", dense(), {.heads = 1, .q_len = 40, .kv_len = 40, .head_dim = 64}, 100},
    };
    return list;
}

class Attention : public ::testing::TestWithParam<std::tuple<size_t, DType, AttentionPath>> {};

TEST_P(Attention, EqualsReference) {
    const auto [index, dtype, path] = GetParam();
    Case c = cases()[index];
    if (c.shape.kv_heads == 1) c.shape.kv_heads = 1;
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

}  // namespace
}  // namespace fovea
