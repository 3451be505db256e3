#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <optional>

#include "backend/error.h"
#include "backend/ops/attention.h"
#include "backend/patterns/block_sparse.h"
#include "backend/patterns/disc.h"
#include "backend/patterns/identity.h"
#include "backend/patterns/radial.h"
#include "backend/patterns/reordered.h"
#include "backend/reference/attention.h"
#include "tests/testing.h"

/// Random problems against the reference: every pattern, shape and option, a seed each.
///   FOVEA_SWEEP       problems a path (default few enough for software Vulkan)
///   FOVEA_SWEEP_SEED  the first seed (default 0); a failure prints its own
/// Seeds below 1000 use few head_dims and options: each set of them is a pipeline to compile.
namespace fovea {
namespace {

using testing::device;

constexpr uint32_t kAllOptionsFrom = 1000;

class Dice {
  public:
    explicit Dice(uint32_t seed) : generator_(seed) {}
    uint32_t number(uint32_t least, uint32_t most) {  // the same on every standard library
        return least + static_cast<uint32_t>(generator_()) % (most - least + 1);
    }
    bool once_in(uint32_t n) { return number(1, n) == 1; }
    float share() { return static_cast<float>(number(0, 1000)) / 1000; }
    template <typename T>
    T one_of(std::initializer_list<T> list) {
        return list.begin()[number(0, static_cast<uint32_t>(list.size()) - 1)];
    }
    /// Often small, where borders are; sometimes exactly a multiple of common tiles.
    uint32_t length(uint32_t most) {
        if (once_in(6)) return std::min(most, one_of({1u, 16u, 32u, 64u, 128u}));
        return once_in(3) ? number(1, most) : number(1, (most + 3) / 4);
    }

  private:
    std::mt19937 generator_;
};

/// Any mask at all: pairs at random, some queries blind, some keys never seen.
struct RandomRule {
    uint32_t seed, percent;

    static uint32_t mixed(uint32_t x) {  // a hash that decides the same on host and in lists
        x = (x ^ x >> 16) * 0x7feb352d;
        x = (x ^ x >> 15) * 0x846ca68b;
        return x ^ x >> 16;
    }
    bool keeps(uint32_t q, uint32_t k) const {
        if (mixed(seed ^ q * 3) % 8 == 0 || mixed(seed ^ (k * 5 + 1)) % 8 == 0) return false;
        return mixed(seed ^ mixed(q * 65537 + k)) % 100 < percent;
    }
    Grid grid() const { return {}; }
    std::string key() const { return fmt::format("random:{}:{}", seed, percent); }
};

struct Problem {
    Pattern pattern = dense();
    reference::AttentionShape shape;
    DType dtype = DType::f32;
    float logits = 1;  ///< scale of q
    bool perturb = false, bias = false, weights = false, labels = false;
    uint32_t relative_columns = 0;         ///< of the grid of the relative bias; 0: none
    bool relative_shared = false;          ///< by all heads
    std::optional<uint32_t> poisoned_key;  ///< NaN and infinities: for those that see it

    std::string text() const {
        const auto& s = shape;
        return fmt::format(
            "{} {}, batch {}, heads {}/{}, {} × {} +{}, dims {} and {}, scale {}, q × "
            "{}{}{}{}{}{}{}",
            pattern.key().substr(0, 120), name_of(dtype), s.batch, s.heads, s.kv_heads, s.q_len,
            s.kv_len, s.extra_len, s.head_dim, s.v_dim, s.scale, logits, perturb ? ", perturb" : "",
            bias ? ", bias" : "", weights ? ", key weights" : "", labels ? ", labels" : "",
            relative_columns ? fmt::format(", relative bias of {} columns", relative_columns) : "",
            poisoned_key ? fmt::format(", key {} poisoned", *poisoned_key) : "");
    }
};

std::vector<uint8_t> random_mask(Dice& dice, size_t count) {
    std::vector<uint8_t> mask(count);
    const uint32_t percent = dice.one_of({20u, 50u, 90u});
    for (auto& visible : mask) visible = dice.number(0, 99) < percent;
    return mask;
}

Pattern random_neighborhood(Dice& dice) {
    const uint32_t rank = dice.number(1, 3);
    Grid grid;
    NeighborhoodOptions o;
    for (uint32_t i = 0; i < rank; ++i) {
        const uint32_t n = dice.number(1, rank == 1 ? 250 : rank == 2 ? 18 : 8);
        const uint32_t dilation = dice.once_in(3) ? dice.number(1, std::min(n, 5u)) : 1;
        const uint32_t window = dice.once_in(5) ? n / dilation : dice.number(1, n / dilation);
        grid.shape.push_back(n);
        o.window.push_back(window);
        o.dilation.push_back(dilation);
        o.stride.push_back(dice.once_in(3) ? dice.number(1, window) : 1);
        o.causal.push_back(dice.once_in(4));
    }
    return neighborhood(std::move(grid), o);
}

RadialOptions radial_options(Dice& dice) {
    RadialOptions o{.frames = dice.number(1, 6),
                    .tokens_per_frame = dice.number(1, 50),
                    .block = dice.one_of({8u, 16u, 32u, 64u}),
                    .decay = dice.one_of({0.2, 0.5, 0.95}),
                    .sink_first_frame = dice.once_in(2)};
    const uint32_t video = o.frames * o.tokens_per_frame;
    o.tokens = video + (dice.once_in(2) ? dice.number(0, 40) : 0);
    return o;
}

/// Blocks that hold many frames can leave queries without a key, which is an error: drawn again.
Pattern random_radial(Dice& dice) {
    for (;;) {
        const RadialOptions o = radial_options(dice);
        try {
            return radial(o);
        } catch (const Error&) {
            continue;
        }
    }
}

Pattern random_block_sparse(Dice& dice, reference::AttentionShape& s) {
    s.q_len = dice.length(260);
    s.kv_len = dice.once_in(2) ? s.q_len : dice.length(260);
    BlockSparseOptions o{.heads = dice.once_in(2) ? 1 : s.heads,
                         .block_q = dice.one_of({8u, 32u, 48u, 64u, 128u}),
                         .block_k = dice.one_of({8u, 32u, 48u, 64u, 128u})};
    o.q_blocks = (s.q_len + o.block_q - 1) / o.block_q;
    o.k_blocks = (s.kv_len + o.block_k - 1) / o.block_k;
    o.mask = random_mask(dice, size_t{o.heads} * o.q_blocks * o.k_blocks);
    return block_sparse(o);
}

Pattern random_reordered(Dice& dice, uint32_t heads) {
    ReorderedOptions o{.grid = {{dice.number(1, 6), dice.number(1, 7), dice.number(1, 8)}},
                       .text_tokens = dice.once_in(2) ? dice.number(0, 20) : 0,
                       .block_q = dice.one_of({16u, 32u, 64u}),
                       .block_k = dice.one_of({16u, 32u, 64u})};
    const auto tokens = static_cast<uint32_t>(o.grid.tokens()) + o.text_tokens;
    for (uint32_t h = 0; h < heads; ++h)
        o.orders.push_back(static_cast<AxisOrder>(dice.number(0, 5)));
    const size_t blocks =
        size_t{(tokens + o.block_q - 1) / o.block_q} * ((tokens + o.block_k - 1) / o.block_k);
    o.mask = random_mask(dice, (dice.once_in(2) ? 1 : heads) * blocks);
    return reordered(o);
}

Pattern random_pattern(Dice& dice, reference::AttentionShape& s) {
    switch (dice.number(0, 7)) {
        case 0:
            return random_neighborhood(dice);
        case 1:
            return random_radial(dice);
        case 2:
            return random_block_sparse(dice, s);
        case 3:
            return random_reordered(dice, s.heads);
        case 4:
            return disc({.shape = {dice.number(1, 16), dice.number(1, 16)}},
                        dice.number(1, 60) / 10.0, dice.once_in(2) ? dice.number(0, 20) : 0);
        case 5:
            return identity({.tokens = dice.number(1, 150),
                             .text_before = dice.once_in(2) ? dice.number(0, 30) : 0,
                             .text_after = dice.once_in(2) ? dice.number(0, 30) : 0});
        default:
            s.q_len = dice.length(260);
            s.kv_len = dice.once_in(2) ? s.q_len : dice.length(260);
            if (dice.once_in(2)) return dense();
            return RandomRule{dice.number(0, 1u << 30), dice.one_of({1u, 30u, 95u})};
    }
}

uint32_t random_divisor(Dice& dice, uint32_t n) {
    uint32_t divisor = dice.number(1, n);
    while (n % divisor != 0) --divisor;
    return divisor;
}

Problem random_problem(uint32_t seed, AttentionPath path) {
    Dice dice(seed);
    Problem p;
    auto& s = p.shape;
    s.kv_heads = dice.number(1, 2);
    s.heads = s.kv_heads * dice.number(1, 2);
    s.batch = dice.number(1, 2);
    p.pattern = random_pattern(dice, s);
    if (!p.pattern.grid().shape.empty())
        s.q_len = s.kv_len = static_cast<uint32_t>(p.pattern.grid().tokens());
    p.dtype = dice.once_in(2) || path != AttentionPath::scalar ? DType::f16 : DType::f32;
    s.head_dim = p.dtype == DType::f32 ? 64 : 40;
    s.v_dim = p.dtype == DType::f32 ? 64 : 72;
    if (seed >= kAllOptionsFrom) {
        s.head_dim = dice.once_in(8) ? 8 * dice.number(1, 32) : dice.one_of({8u, 64u, 128u});
        s.v_dim = dice.once_in(8) ? 8 * dice.number(1, 32) : s.head_dim;
    }
    if (dice.once_in(4)) s.extra_len = dice.number(1, 40);
    if (dice.once_in(4)) s.scale = dice.one_of({0.05f, 0.3f, 1.f, -0.2f});
    if (dice.once_in(6)) p.logits = dice.one_of({0.01f, 30.f});
    p.perturb = s.q_len == s.kv_len && dice.once_in(5);
    if (seed >= kAllOptionsFrom) {
        p.bias = dice.once_in(10);
        p.weights = dice.once_in(10);
    }
    if (dice.once_in(4)) p.poisoned_key = dice.number(0, s.kv_len - 1);
    if (seed >= kAllOptionsFrom) {
        p.labels = dice.once_in(8);
        if (s.q_len == s.kv_len && dice.once_in(6))
            p.relative_columns = random_divisor(dice, s.q_len);
        p.relative_shared = dice.once_in(2);
    }
    return p;
}

constexpr uint32_t kQueryLabels = 3, kKeyLabels = 4;

struct Inputs {
    std::vector<float> q, k, v, k_extra, v_extra, perturb, bias, weights, relative, multipliers;
    std::vector<int32_t> q_labels, k_labels;

    reference::AttentionModifiers modifiers(const Problem& p) const {
        return {.perturb = perturb,
                .bias = bias,
                .relative_bias = relative,
                .columns = p.relative_columns,
                .key_weights = weights,
                .q_labels = q_labels,
                .k_labels = k_labels,
                .multipliers = multipliers,
                .key_label_count = kKeyLabels};
    }
};

Inputs random_inputs(const Problem& p, uint32_t seed) {
    const auto& s = p.shape;
    const auto values = [&](size_t count, uint32_t number, float scale = 1) {
        return testing::random_values(count, seed * 16 + number, p.dtype, scale);
    };
    const size_t kv = size_t{s.batch} * s.kv_heads;
    Inputs in{.q = values(size_t{s.batch} * s.heads * s.q_len * s.head_dim, 0, p.logits),
              .k = values(kv * s.kv_len * s.head_dim, 1),
              .v = values(kv * s.kv_len * s.v_dim, 2),
              .k_extra = values(kv * s.extra_len * s.head_dim, 3),
              .v_extra = values(kv * s.extra_len * s.v_dim, 4)};
    Dice dice(seed + 1);
    for (uint32_t h = 0; h < s.heads && p.perturb; ++h)
        in.perturb.push_back(dice.one_of({0.f, 1.f, dice.share()}));
    if (p.bias) in.bias = values(size_t{s.heads} * s.q_len * s.kv_len, 5);
    for (uint32_t i = 0; i < s.heads * s.kv_len && p.weights; ++i)
        in.weights.push_back(dice.once_in(10) ? 0 : 2 * dice.share());
    if (const uint32_t columns = p.relative_columns) {
        const uint32_t rows = s.q_len / columns;
        const size_t table = size_t{2 * rows - 1} * (2 * columns - 1);
        in.relative = values(table * s.heads, 6);
        if (p.relative_shared)
            for (size_t i = table; i < in.relative.size(); ++i)
                in.relative[i] = in.relative[i - table];
    }
    if (p.labels) {
        for (uint32_t i = 0; i < s.q_len; ++i)
            in.q_labels.push_back(static_cast<int32_t>(dice.number(0, kQueryLabels - 1)));
        for (uint32_t i = 0; i < s.kv_len; ++i)
            in.k_labels.push_back(static_cast<int32_t>(dice.number(0, kKeyLabels - 1)));
        for (uint32_t i = 0; i < kQueryLabels * kKeyLabels; ++i)
            in.multipliers.push_back(dice.one_of({0.f, -1.f, 2 * dice.share()}));
    }
    if (p.poisoned_key) {
        const float bad = dice.one_of({std::numeric_limits<float>::quiet_NaN(),
                                       std::numeric_limits<float>::infinity(),
                                       -std::numeric_limits<float>::infinity()});
        for (size_t head = 0; head < kv; ++head) {
            const size_t row = head * s.kv_len + *p.poisoned_key;
            std::fill_n(in.k.begin() + static_cast<int64_t>(row * s.head_dim), s.head_dim, bad);
            std::fill_n(in.v.begin() + static_cast<int64_t>(row * s.v_dim), s.v_dim, bad);
        }
    }
    return in;
}

struct Result {
    std::vector<float> o, lse;
};

Result run(const Problem& p, const Inputs& in, AttentionPath path) {
    const auto& s = p.shape;
    const int64_t b = s.batch, h = s.heads, hkv = s.kv_heads, nq = s.q_len, nk = s.kv_len,
                  e = s.extra_len, d = s.head_dim, dv = s.v_dim;
    vk::Stream stream(device());
    const auto tensor = [&](const std::vector<float>& values, Shape shape, DType dtype) {
        return values.empty() ? Tensor() : upload(stream, values, std::move(shape), dtype);
    };
    const auto labels = [&](const std::vector<int32_t>& values) {
        return values.empty() ? Tensor()
                              : upload(stream, values, {static_cast<int64_t>(values.size())});
    };
    Tensor relative;
    if (const int64_t columns = p.relative_columns) {
        const Shape all{h, 2 * (nq / columns) - 1, 2 * columns - 1};
        relative = tensor(in.relative, all, DType::f32);
        if (p.relative_shared) relative = relative.slice(0, 1);
    }
    Tensor lse;
    const AttentionOptions options{
        .scale = s.scale,
        .k_extra = tensor(in.k_extra, {b, hkv, e, d}, p.dtype),
        .v_extra = tensor(in.v_extra, {b, hkv, e, dv}, p.dtype),
        .lse = &lse,
        .perturb = tensor(in.perturb, {h}, DType::f32),
        .bias = tensor(in.bias, {h, nq, nk}, DType::f32),
        .relative_bias = relative,
        .key_weights = tensor(in.weights, {h, nk}, DType::f32),
        .q_labels = labels(in.q_labels),
        .k_labels = labels(in.k_labels),
        .multipliers = tensor(in.multipliers, {kQueryLabels, kKeyLabels}, DType::f32),
        .path = path};
    const Tensor o = attention(stream, tensor(in.q, {b, h, nq, d}, p.dtype),
                               tensor(in.k, {b, hkv, nk, d}, p.dtype),
                               tensor(in.v, {b, hkv, nk, dv}, p.dtype), p.pattern, options);
    return {to_host(stream, o), to_host(stream, lse)};
}

/// Rows that a poisoned key reaches have no expected value; equal infinities differ by nothing.
void drop_unexpected(Result& found, Result& expected, const Problem& p) {
    for (size_t i = 0; i < expected.lse.size(); ++i) {
        const auto row = static_cast<uint32_t>(i % p.shape.q_len);
        const auto head = static_cast<uint32_t>(i / p.shape.q_len % p.shape.heads);
        const bool reached = p.poisoned_key && ((p.perturb && row == *p.poisoned_key) ||
                                                p.pattern.head(head).keeps(row, *p.poisoned_key));
        if (reached || (std::isinf(expected.lse[i]) && found.lse[i] == expected.lse[i]))
            found.lse[i] = expected.lse[i] = 0;
        for (size_t c = i * p.shape.v_dim; c < (i + 1) * p.shape.v_dim && reached; ++c)
            found.o[c] = expected.o[c] = 0;
    }
}

float largest(const std::vector<float>& values) {
    float most = 0;
    for (const float value : values)
        if (std::isfinite(value)) most = std::max(most, std::abs(value));
    return most;
}

uint32_t from_environment(const char* name, uint32_t otherwise) {
    const char* text = std::getenv(name);
    return text ? static_cast<uint32_t>(std::strtoul(text, nullptr, 10)) : otherwise;
}

class AttentionSweep : public ::testing::TestWithParam<AttentionPath> {};

TEST_P(AttentionSweep, EqualsReference) {
    const AttentionPath path = GetParam();
    for (const auto& [each, support] : attention_paths(device().info(), DType::f16))
        if (each == path && !support.ok) GTEST_SKIP() << name_of(path) << ": " << support.why;
    const uint32_t first = from_environment("FOVEA_SWEEP_SEED", 0);
    const uint32_t count = from_environment("FOVEA_SWEEP", 100);
    float worst_o = 0, worst_lse = 0;
    for (uint32_t seed = first; seed < first + count; ++seed) {
        const Problem p = random_problem(seed, path);
        SCOPED_TRACE(fmt::format("FOVEA_SWEEP_SEED={} path {}: {}", seed, name_of(path), p.text()));
        const Inputs in = random_inputs(p, seed);
        const auto reference = reference::attention(in.q, in.k, in.v, p.pattern, p.shape,
                                                    in.k_extra, in.v_extra, in.modifiers(p));
        Result expected{reference.o, reference.lse}, found = run(p, in, path);
        if (seed % 8 == 0) {
            const Result again = run(p, in, path);
            const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
                return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
            };
            EXPECT_TRUE(same(again.o, found.o) && same(again.lse, found.lse))
                << "not the same bits twice";
        }
        drop_unexpected(found, expected, p);
        // A logit of 100 is known to 1e-5 in fp32, and so is its weight.
        const float logits = largest(expected.lse);
        testing::Tolerance allowed = testing::tolerance(p.dtype);
        allowed.absolute += 2e-6f * logits;
        EXPECT_TRUE(testing::close(found.o, expected.o, allowed));
        EXPECT_TRUE(testing::close(found.lse, expected.lse, {1e-4f, 2e-6f}));
        for (size_t i = 0; i < found.o.size(); ++i)
            worst_o = std::max(worst_o, std::abs(found.o[i] - expected.o[i]));
        for (size_t i = 0; i < found.lse.size(); ++i)
            worst_lse = std::max(worst_lse, std::abs(found.lse[i] - expected.lse[i]));
        if (HasFailure() &&
            ::testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count() >=
                6)
            break;  // the first few say enough
    }
    std::printf("%u problems from seed %u on path %s: largest error of o %.2g, of lse %.2g\n",
                count, first, name_of(path), worst_o, worst_lse);
}

INSTANTIATE_TEST_SUITE_P(Paths, AttentionSweep,
                         ::testing::Values(AttentionPath::scalar, AttentionPath::khr,
                                           AttentionPath::nv2),
                         [](const auto& info) { return std::string(name_of(info.param)); });

}  // namespace
}  // namespace fovea
