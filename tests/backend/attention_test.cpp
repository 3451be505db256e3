#include "backend/ops/attention.h"

#include <gmock/gmock.h>

#include <set>

#include "backend/error.h"
#include "backend/reference/attention.h"
#include "tests/testing.h"

namespace fovea {
namespace {

using testing::device;

/// While it lives, devices without matrix units run the kernels of khr and nv2 on registers.
struct EmulatedMatrices {
    EmulatedMatrices() { setenv("FOVEA_EMULATE_MATRICES", "1", 1); }
    ~EmulatedMatrices() { unsetenv("FOVEA_EMULATE_MATRICES"); }
};

/// No query of an odd row sees anything.
struct OddRowsBlind {
    uint32_t tokens;
    bool keeps(uint32_t q, uint32_t k) const { return q % 2 == 0 && (q + k) % 3 != 0; }
    Grid grid() const { return {.shape = {tokens}}; }
    std::string key() const { return "odd_rows_blind"; }
};

/// Which logit modifiers a case has.
enum Modifier : uint32_t { kPerturb = 1, kBias = 2, kRelative = 4, kWeights = 8, kLabels = 16 };

struct Case {
    const char* name;
    Pattern pattern;
    reference::AttentionShape shape;
    float logits = 1;  ///< scale of q: large logits overflow a naive softmax
    uint32_t modifiers = 0;
    uint32_t columns = 0;       ///< of the grid of a relative bias
    bool shared_table = false;  ///< one table for all heads
};

/// Two heads that see different things.
struct ByHead {
    uint32_t tokens;
    Pattern head(uint32_t h) const {
        if (h == 0) return OddRowsBlind{tokens};
        return neighborhood(grid(), {.window = {5}});
    }
    uint32_t heads() const { return 2; }
    bool keeps(uint32_t q, uint32_t k) const { return head(0).keeps(q, k); }
    Grid grid() const { return {.shape = {tokens}}; }
    std::string key() const { return "by_head"; }
};

/// Sees its block of 8 and the first key, in an order that is not the tokens': slot i holds token
/// (i · 5) % tokens, padded to whole tiles.
struct Shuffled {
    uint32_t tokens;
    bool keeps(uint32_t q, uint32_t k) const { return q / 8 == k / 8 || k == 0; }
    Grid grid() const { return {.shape = {tokens}}; }
    std::string key() const { return "shuffled"; }
    BlockList blocks(TileShape tile) const {
        BlockList list{.tile = tile, .q_len = tokens, .kv_len = tokens};
        const auto order = [&](uint32_t size) {
            std::vector<uint32_t> slots((tokens + size - 1) / size * size, BlockList::kNoToken);
            for (uint32_t i = 0; i < tokens; ++i) slots[i] = i * 5 % tokens;
            return slots;
        };
        list.q_order = order(tile.q);
        list.k_order = order(tile.k);
        for (uint32_t t = 0; t < list.q_order.size() / tile.q; ++t) {
            list.rows.push_back({static_cast<uint32_t>(list.blocks.size()), list.key_tiles()});
            for (uint32_t kt = 0; kt < list.key_tiles(); ++kt) {
                list.blocks.push_back(
                    {kt, static_cast<uint32_t>(list.masks.size() / tile.q / list.mask_words())});
                for (uint32_t r = 0; r < tile.q; ++r)
                    for (uint32_t w = 0; w < list.mask_words(); ++w) {
                        uint32_t bits = 0;
                        for (uint32_t c = w * 32; c < std::min(tile.k, w * 32 + 32); ++c) {
                            const uint32_t q = list.q_order[t * tile.q + r];
                            const uint32_t k = list.k_order[kt * tile.k + c];
                            if (q != BlockList::kNoToken && k != BlockList::kNoToken && keeps(q, k))
                                bits |= 1u << (c % 32), ++list.kept_pairs;
                        }
                        list.masks.push_back(bits);
                    }
            }
        }
        return list;
    }
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
        {"row_without_key_tiny_scale",
         OddRowsBlind{45},
         {.heads = 2, .kv_heads = 2, .q_len = 45, .kv_len = 45, .head_dim = 64, .scale = 1e-12f}},
        {"negative_scale",
         OddRowsBlind{45},
         {.heads = 2, .kv_heads = 2, .q_len = 45, .kv_len = 45, .head_dim = 64, .scale = -0.2f}},
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
        {"v_dim_wider",
         dense(),
         {.heads = 4, .kv_heads = 2, .q_len = 37, .kv_len = 53, .head_dim = 24, .v_dim = 64}},
        {"v_dim_narrower",
         OddRowsBlind{45},
         {.heads = 1, .kv_heads = 1, .q_len = 45, .kv_len = 45, .head_dim = 64, .v_dim = 40}},
        {"by_head", ByHead{77}, self(2, 77, 64)},
        {"shuffled", Shuffled{91}, self(2, 91, 64)},
        {"shuffled_extra",
         Shuffled{91},
         {.heads = 2, .kv_heads = 1, .q_len = 91, .kv_len = 91, .head_dim = 64, .extra_len = 21}},
        {"perturbed", dense(), self(4, 70, 64), 1, kPerturb},
        {"perturbed_shuffled", Shuffled{91}, self(3, 91, 64), 1, kPerturb},
        {"bias",
         dense(),
         {.heads = 2, .kv_heads = 2, .q_len = 40, .kv_len = 75, .head_dim = 64},
         1,
         kBias},
        {"bias_shared", Shuffled{91}, self(2, 91, 64), 1, kBias, 0, true},
        {"relative_bias", dense(), self(2, 77, 64), 1, kRelative, 7},
        {"key_weights",
         neighborhood({.shape = {60}}, {.window = {9}}),
         {.heads = 2, .kv_heads = 2, .q_len = 60, .kv_len = 60, .head_dim = 64, .extra_len = 5},
         1,
         kWeights},
        {"labels",
         dense(),
         {.heads = 2, .kv_heads = 2, .q_len = 33, .kv_len = 50, .head_dim = 64},
         1,
         kLabels},
        {"all_modifiers", Shuffled{91}, self(4, 91, 64), 1,
         kPerturb | kBias | kRelative | kWeights | kLabels, 13},
    };
    return list;
}

class Attention : public ::testing::TestWithParam<std::tuple<size_t, DType, AttentionPath>> {};

/// What each part of the matrix kernels is needed for at least once.
const std::set<std::string_view> kEmulated = {"row_without_key_tiny_scale",
                                              "negative_scale",
                                              "prime_tokens",
                                              "gqa_batch",
                                              "head_dim_72",
                                              "row_without_key",
                                              "v_dim_wider",
                                              "shuffled_extra",
                                              "perturbed_shuffled",
                                              "all_modifiers"};

/// The tables of a case, on the host and for the device.
struct Tables {
    std::vector<float> perturb, bias, relative, weights, multipliers;
    std::vector<int32_t> q_labels, k_labels;
    reference::AttentionModifiers modifiers;

    Tables(vk::Stream& stream, const Case& c, AttentionOptions& options) {
        const auto& s = c.shape;
        const int64_t tables = c.shared_table ? 1 : s.heads, nq = s.q_len, nk = s.kv_len;
        const auto table = [&](uint32_t kind, Shape shape, uint32_t seed, std::vector<float>& host,
                               Tensor& tensor) {
            if (!(c.modifiers & kind)) return;
            int64_t count = 1;
            for (const int64_t n : shape) count *= n;
            host = testing::random_values(static_cast<size_t>(count), seed);
            if (kind == kWeights)
                for (float& x : host) x = std::abs(x) < 0.2f ? 0 : x * x;  // some weigh nothing
            if (kind == kPerturb)
                for (size_t h = 0; h < host.size(); ++h)
                    host[h] = h == 0 ? 1.0f : h == 1 ? 0.3f : h == 2 ? 0.0f : 0.9f;
            tensor = upload(stream, host, shape, DType::f32);
            if (c.shared_table && kind != kPerturb && kind != kLabels) {
                const std::vector<float> one = host;
                for (uint32_t h = 1; h < s.heads; ++h)
                    host.insert(host.end(), one.begin(), one.end());
            }
        };
        table(kPerturb, {s.heads}, 20, perturb, options.perturb);
        table(kBias, {tables, nq, nk}, 21, bias, options.bias);
        if (c.columns > 0)
            table(kRelative, {tables, 2 * (nq / c.columns) - 1, 2 * int64_t{c.columns} - 1}, 22,
                  relative, options.relative_bias);
        table(kWeights, {tables, nk}, 23, weights, options.key_weights);
        table(kLabels, {2, 3}, 24, multipliers, options.multipliers);
        if (c.modifiers & kLabels) {
            for (int64_t i = 0; i < nq; ++i) q_labels.push_back(i % 5 == 0);
            for (int64_t j = 0; j < nk; ++j) k_labels.push_back(static_cast<int32_t>(j % 7 % 3));
            options.q_labels = upload(stream, q_labels, {nq});
            options.k_labels = upload(stream, k_labels, {nk});
        }
        modifiers = {.perturb = perturb,
                     .bias = bias,
                     .relative_bias = relative,
                     .columns = c.columns,
                     .key_weights = weights,
                     .q_labels = q_labels,
                     .k_labels = k_labels,
                     .multipliers = multipliers,
                     .key_label_count = 3};
    }
};

TEST_P(Attention, EqualsReference) {
    const auto [index, dtype, path] = GetParam();
    const Case& c = cases()[index];
    const auto& s = c.shape;
    const EmulatedMatrices emulated;
    for (const auto& [candidate, support] : attention_paths(device().info(), dtype))
        if (candidate == path && !support.ok) GTEST_SKIP() << name_of(path) << ": " << support.why;
    if (path != AttentionPath::scalar && device().info().fp16_matrices.empty() &&
        !kEmulated.contains(c.name))
        GTEST_SKIP() << name_of(path)
                     << ": emulated matrices take seconds a pipeline, and run a few "
                     << "cases only";

    const int64_t b = s.batch, h = s.heads, hkv = s.kv_heads, nq = s.q_len, nk = s.kv_len,
                  e = s.extra_len, d = s.head_dim, dv = s.v_dim ? s.v_dim : s.head_dim;
    const auto values = [&, type = dtype](int64_t count, uint32_t seed, float scale) {
        return testing::random_values(static_cast<size_t>(count), seed, type, scale);
    };
    const auto q = values(b * h * nq * d, 1, c.logits), k = values(b * hkv * nk * d, 2, 1),
               v = values(b * hkv * nk * dv, 3, 1);
    const auto k_extra = values(b * hkv * e * d, 4, 1), v_extra = values(b * hkv * e * dv, 5, 1);

    vk::Stream stream(device());
    Tensor lse;
    AttentionOptions options{.scale = s.scale, .lse = &lse, .path = path};
    if (e > 0) {
        options.k_extra = upload(stream, k_extra, {b, hkv, e, d}, dtype);
        options.v_extra = upload(stream, v_extra, {b, hkv, e, dv}, dtype);
    }
    const Tables tables(stream, c, options);
    const auto expected =
        reference::attention(q, k, v, c.pattern, s, k_extra, v_extra, tables.modifiers);
    {  // the pool hands this memory to the output: what the kernel does not write stays NaN
        const Tensor poison = empty(device(), {b, h, nq, dv}, dtype);
        const Tensor lse_poison = empty(device(), {b, h, nq}, DType::f32);
        stream.fill(write(poison), 0xffffffff);
        stream.fill(write(lse_poison), 0xffffffff);
    }
    const Tensor tq = upload(stream, q, {b, h, nq, d}, dtype),
                 tk = upload(stream, k, {b, hkv, nk, d}, dtype),
                 tv = upload(stream, v, {b, hkv, nk, dv}, dtype);
    const Tensor o = attention(stream, tq, tk, tv, c.pattern, options);
    EXPECT_EQ(o.shape(), (Shape{b, h, nq, dv}));
    const std::vector<float> found_o = to_host(stream, o);
    EXPECT_TRUE(testing::close(found_o, expected.o, testing::tolerance(dtype)));
    auto found = to_host(stream, lse), wanted = expected.lse;
    for (size_t i = 0; i < wanted.size(); ++i)  // −∞ − −∞ is NaN
        if (std::isinf(wanted[i]) && found[i] == wanted[i]) found[i] = wanted[i] = 0;
    EXPECT_TRUE(testing::close(found, wanted, {1e-4f, 2e-6f}));

    // Without the LSE (heads that are wholly perturbed skip their scores), and the LSE alone, where
    // that is not one more pipeline a case: same bits.
    options.lse = nullptr;
    EXPECT_EQ(to_host(stream, attention(stream, tq, tk, tv, c.pattern, options)), found_o);
    if (c.modifiers == 0 && s.head_dim == 64) {
        EXPECT_EQ(to_host(stream, attention_lse(stream, tq, tk, c.pattern, options)),
                  to_host(stream, lse));
    }
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

/// Values of unseen keys are −∞ and NaN, in full and in partial blocks' neighbourhood: rows that do
/// not see them are as if they were 0; a row that does see one is NaN.
TEST(AttentionUnseen, NothingLeaksAndNothingIsHidden) {
    constexpr uint32_t kTokens = 70, kDim = 64, kBad = 33;
    const Pattern window = neighborhood({.shape = {kTokens}}, {.window = {9}});
    const EmulatedMatrices emulated;
    for (const DType dtype : {DType::f32, DType::f16})
        for (const auto& [path, support] : attention_paths(device().info(), dtype)) {
            if (!support.ok) continue;
            SCOPED_TRACE(fmt::format("{} {}", name_of(path), name_of(dtype)));
            for (const float bad :
                 {-std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
                for (const bool in_v : {false, true}) {
                    const auto q = testing::random_values(kTokens * kDim, 1, dtype);
                    auto k = testing::random_values(kTokens * kDim, 2, dtype);
                    auto v = testing::random_values(kTokens * kDim, 3, dtype);
                    const auto clean = reference::attention(
                        q, k, v, window, {.q_len = kTokens, .kv_len = kTokens, .head_dim = kDim});
                    for (uint32_t c = 0; c < kDim; ++c) (in_v ? v : k)[kBad * kDim + c] = bad;
                    vk::Stream stream(device());
                    const Shape shape{1, 1, kTokens, kDim};
                    const auto o = to_host(
                        stream, attention(stream, upload(stream, q, shape, dtype),
                                          upload(stream, k, shape, dtype),
                                          upload(stream, v, shape, dtype), window, {.path = path}));
                    uint32_t seen_bad = 0;
                    for (uint32_t i = 0; i < kTokens; ++i) {
                        const std::span row = std::span(o).subspan(i * kDim, kDim);
                        if (!window.keeps(i, kBad)) {
                            EXPECT_TRUE(testing::close(row,
                                                       std::span(clean.o).subspan(i * kDim, kDim),
                                                       testing::tolerance(dtype)))
                                << "query " << i;
                        } else {
                            seen_bad += !std::isfinite(row[0]);
                        }
                    }
                    EXPECT_EQ(seen_bad, 9u);
                }
        }
}

/// Logits of ±10⁴ and values near fp16's maximum.
TEST(AttentionExtremes, StayFinite) {
    constexpr uint32_t kTokens = 50, kDim = 64;
    const EmulatedMatrices emulated;
    for (const auto& [path, support] : attention_paths(device().info())) {
        if (!support.ok) continue;
        auto q = testing::random_values(kTokens * kDim, 1, DType::f16, 100);
        auto k = testing::random_values(kTokens * kDim, 2, DType::f16, 100);
        auto v = testing::random_values(kTokens * kDim, 3, DType::f16, 20000);
        for (float& x : v) x = half_to_float(float_to_half(std::clamp(x, -65504.0f, 65504.0f)));
        const auto expected = reference::attention(
            q, k, v, dense(), {.q_len = kTokens, .kv_len = kTokens, .head_dim = kDim});
        EXPECT_GT(*std::max_element(expected.lse.begin(), expected.lse.end()), 1e4f);
        vk::Stream stream(device());
        const Shape shape{1, 1, kTokens, kDim};
        Tensor lse;
        const auto o = to_host(stream, attention(stream, upload(stream, q, shape, DType::f16),
                                                 upload(stream, k, shape, DType::f16),
                                                 upload(stream, v, shape, DType::f16), dense(),
                                                 {.lse = &lse, .path = path}));
        EXPECT_TRUE(testing::close(o, expected.o, {64, 4e-3f})) << name_of(path);  // ulp: 32
        EXPECT_TRUE(testing::close(to_host(stream, lse), expected.lse, {1e-2f, 2e-6f}));
    }
}

/// Weights are rounded to fp16 on matrix paths: their mean of fp16's maximum must not exceed it.
TEST(AttentionExtremes, AMeanOfTheLargestValueIsThatValue) {
    constexpr uint32_t kTokens = 64, kDim = 64;
    const EmulatedMatrices emulated;
    for (const auto& [path, support] : attention_paths(device().info())) {
        if (!support.ok) continue;
        std::vector<float> q(kTokens * kDim, 0.0f), k(kTokens * kDim, 0.0f);
        const std::vector<float> v(kTokens * kDim, 65504.0f);
        // One logit of 0, all others ln(0.50026): a weight that rounds up by almost half an ulp.
        for (uint32_t i = 0; i < kTokens; ++i) q[i * kDim] = 1;
        for (uint32_t j = 1; j < kTokens; ++j) k[j * kDim] = -0.6926f;
        vk::Stream stream(device());
        const Shape shape{1, 1, kTokens, kDim};
        const auto o = to_host(stream, attention(stream, upload(stream, q, shape, DType::f16),
                                                 upload(stream, k, shape, DType::f16),
                                                 upload(stream, v, shape, DType::f16), dense(),
                                                 {.scale = 1, .path = path}));
        EXPECT_TRUE(testing::close(o, v, {64, 0})) << name_of(path);
    }
}

/// −FLT_MAX is a usual way to mask by a bias: a row of nothing else is a mean, not 0 and not NaN.
TEST(AttentionExtremes, BiasOfTheLeastFloat) {
    constexpr uint32_t kTokens = 40, kDim = 64;
    std::vector<float> bias(kTokens * kTokens, 0.0f);
    for (uint32_t j = 0; j < kTokens; ++j) {
        bias[3 * kTokens + j] = std::numeric_limits<float>::lowest();
        bias[5 * kTokens + j] = -std::numeric_limits<float>::infinity();
        if (j > 0) bias[7 * kTokens + j] = std::numeric_limits<float>::lowest();
    }
    const EmulatedMatrices emulated;
    for (const auto& [path, support] : attention_paths(device().info())) {
        if (!support.ok) continue;
        const auto q = testing::random_values(kTokens * kDim, 1, DType::f16),
                   k = testing::random_values(kTokens * kDim, 2, DType::f16),
                   v = testing::random_values(kTokens * kDim, 3, DType::f16);
        const auto expected = reference::attention(
            q, k, v, dense(), {.q_len = kTokens, .kv_len = kTokens, .head_dim = kDim}, {}, {},
            {.bias = bias});
        vk::Stream stream(device());
        const Shape shape{1, 1, kTokens, kDim};
        const AttentionOptions options{
            .bias = upload(stream, bias, {1, kTokens, kTokens}, DType::f32), .path = path};
        const auto o =
            to_host(stream, attention(stream, upload(stream, q, shape, DType::f16),
                                      upload(stream, k, shape, DType::f16),
                                      upload(stream, v, shape, DType::f16), dense(), options));
        EXPECT_TRUE(testing::close(o, expected.o, testing::tolerance(DType::f16))) << name_of(path);
    }
}

TEST(AttentionDeterminism, SameInputsSameBits) {
    const EmulatedMatrices emulated;
    for (const auto& [path, support] : attention_paths(device().info())) {
        if (!support.ok) continue;
        vk::Stream stream(device());
        const auto values = testing::random_values(2 * 91 * 64, 1, DType::f16);
        const Tensor x = upload(stream, values, {1, 2, 91, 64}, DType::f16);
        const AttentionOptions options{.path = path};
        EXPECT_EQ(to_host(stream, attention(stream, x, x, x, Shuffled{91}, options)),
                  to_host(stream, attention(stream, x, x, x, Shuffled{91}, options)));
    }
}

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
    EXPECT_THAT(refusal(q, k, with({1, 2, 15, 8}), dense(), stream), HasSubstr("must agree"));
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
                HasSubstr("(1, 2, 3, 8)"));
}

TEST(AttentionPath, ForcedIneligiblePathIsAnErrorWithItsReason) {
    vk::Stream stream(device());
    const Tensor q = zeros(stream, {1, 1, 4, 8});
    for (const auto& [path, support] : attention_paths(device().info(), DType::f32)) {
        const std::string by_option = refusal(q, q, q, dense(), stream, {.path = path});
        setenv("FOVEA_PATH", name_of(path), 1);
        const std::string by_environment = refusal(q, q, q, dense(), stream);
        unsetenv("FOVEA_PATH");
        EXPECT_EQ(by_option, by_environment);
        if (support.ok)
            EXPECT_EQ(by_option, "");
        else
            EXPECT_THAT(by_option, ::testing::HasSubstr(support.why));
    }
    setenv("FOVEA_PATH", "fastest", 1);
    EXPECT_THAT(refusal(q, q, q, dense(), stream), ::testing::HasSubstr("\"fastest\""));
    unsetenv("FOVEA_PATH");
}

/// One head of a pattern may have the same key as the pattern of one head: their lists differ.
struct OneHead {
    bool is_head = false;
    bool keeps(uint32_t q, uint32_t k) const { return q / 4 == k / 4; }
    uint32_t heads() const { return is_head ? 0 : 1; }
    OneHead head(uint32_t) const { return {true}; }
    Grid grid() const { return {.shape = {37}}; }
    std::string key() const { return "one_head"; }
};

TEST(AttentionList, APatternOfOneHeadAndThatHeadForMany) {
    vk::Stream stream(device());
    const auto values = testing::random_values(4 * 37 * 8, 1);
    const Tensor one = upload(stream, std::span(values).first(37 * 8), {1, 1, 37, 8}, DType::f32),
                 four = upload(stream, values, {1, 4, 37, 8}, DType::f32);
    attention(stream, one, one, one, OneHead{});
    EXPECT_TRUE(testing::close(
        to_host(stream, attention(stream, four, four, four, OneHead{true})),
        reference::attention(values, values, values, OneHead{true},
                             {.heads = 4, .kv_heads = 4, .q_len = 37, .kv_len = 37, .head_dim = 8})
            .o,
        testing::tolerance(DType::f32)));
}

TEST(AttentionPath, TilesThatKernelsCannotTakeAreRefused) {
    const EmulatedMatrices emulated;
    vk::Stream stream(device());
    const Tensor x = zeros(stream, {1, 1, 64, 64}, DType::f16);
    for (const auto& [tile, path] : {std::pair{"1x16x4", AttentionPath::nv2},
                                     {"2x24x1", AttentionPath::nv2},
                                     {"2x8x1", AttentionPath::khr},
                                     {"2x32x2", AttentionPath::khr},
                                     {"2x32", AttentionPath::nv2}}) {
        setenv("FOVEA_TILE", tile, 1);
        EXPECT_THAT(refusal(x, x, x, dense(), stream, {.path = path}),
                    ::testing::HasSubstr("FOVEA_TILE"))
            << tile;
        unsetenv("FOVEA_TILE");
    }
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

TEST(AttentionList, OutlivesAStreamThatSubmittedNothing) {
    constexpr uint32_t kTokens = 41;
    const Pattern pattern = OddRowsBlind{kTokens};
    const auto values = testing::random_values(kTokens * 8, 2);
    const auto result = [&](vk::Stream& stream) {
        const Tensor q = upload(stream, values, {1, 1, kTokens, 8}, DType::f32);
        return attention(stream, q, q, q, pattern);
    };
    {
        vk::Stream gone(device());
        result(gone);
    }
    vk::Stream stream(device());
    EXPECT_TRUE(
        testing::close(to_host(stream, result(stream)),
                       reference::attention(values, values, values, pattern,
                                            {.q_len = kTokens, .kv_len = kTokens, .head_dim = 8})
                           .o,
                       testing::tolerance(DType::f32)));
}

}  // namespace
}  // namespace fovea
