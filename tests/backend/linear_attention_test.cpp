#include "backend/ops/linear_attention.h"

#include <gmock/gmock.h>

#include "backend/error.h"
#include "backend/ops/permute.h"
#include "backend/reference/linear_attention.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using reference::LinearInputs;
using reference::LinearNormaliser;
using reference::LinearShape;
using testing::close;
using testing::device;
using testing::Input;
using testing::Tolerance;

/// What a case uses of the options.
struct Parts {
    Activation features = Activation::elu_plus_one;
    Normaliser normaliser = Normaliser::sum;
    bool key_weights = false, query_weights = false, turned = false, gate = false;
};

Tolerance allowed(DType dtype) {
    return dtype == DType::f16 ? Tolerance{6e-3f, 6e-3f} : Tolerance{1e-4f, 1e-4f};
}

Input positive(vk::Stream& stream, const Shape& shape, uint32_t seed) {
    Input x = testing::input(stream, shape, seed, DType::f32);
    for (float& value : x.host) value = 0.5f + 0.2f * std::abs(value);
    x.device = upload(stream, x.host, shape, DType::f32);
    return x;
}

void expect_reference(const LinearShape& s, DType dtype, const Parts& parts) {
    SCOPED_TRACE(fmt::format("{} b{} h{} {}×{} d{} e{} features {} normaliser {}", name_of(dtype),
                             s.batch, s.heads, s.q_len, s.kv_len, s.head_dim, s.v_dim,
                             static_cast<int>(parts.features), static_cast<int>(parts.normaliser)));
    vk::Stream stream(device());
    const auto size = [](size_t n) { return static_cast<int64_t>(n); };
    const auto shape = [&](size_t tokens, size_t dims) {
        return Shape{size(s.batch), size(tokens), size(s.heads), size(dims)};
    };
    const Shape q_shape = shape(s.q_len, s.head_dim), k_shape = shape(s.kv_len, s.head_dim);
    const Input q = testing::input(stream, q_shape, 1, dtype),
                k = testing::input(stream, k_shape, 2, dtype),
                v = testing::input(stream, shape(s.kv_len, s.v_dim), 3, dtype);
    LinearAttentionOptions options{.features = parts.features, .normaliser = parts.normaliser};
    LinearInputs inputs{.q = q.host,
                        .k = k.host,
                        .v = v.host,
                        .features = parts.features,
                        .normaliser = static_cast<LinearNormaliser>(parts.normaliser)};
    Input key_weights, query_weights, q_turned, k_turned, gate;
    if (parts.key_weights) {
        key_weights = positive(stream, {size(s.batch), size(s.heads), size(s.kv_len)}, 4);
        options.key_weights = key_weights.device;
        inputs.key_weights = key_weights.host;
    }
    if (parts.query_weights) {
        query_weights = positive(stream, {size(s.batch), size(s.heads), size(s.q_len)}, 5);
        options.query_weights = query_weights.device;
        inputs.query_weights = query_weights.host;
    }
    if (parts.turned) {
        q_turned = testing::input(stream, q_shape, 6, dtype);
        k_turned = testing::input(stream, k_shape, 7, dtype);
        options.q_turned = q_turned.device;
        options.k_turned = k_turned.device;
        inputs.q_turned = q_turned.host;
        inputs.k_turned = k_turned.host;
    }
    if (parts.gate) {
        gate = testing::input(stream, shape(s.q_len, s.v_dim), 8, dtype);
        options.gate = gate.device;
        inputs.gate = gate.host;
    }
    testing::poison(stream, shape(s.q_len, s.v_dim), dtype);
    const Tensor o = linear_attention(stream, q.device, k.device, v.device, options);
    EXPECT_EQ(o.shape(), shape(s.q_len, s.v_dim));
    EXPECT_TRUE(close(to_host(stream, o), reference::linear_attention(inputs, s), allowed(dtype)));
}

TEST(LinearAttention, AgreesWithPairs) {
    const LinearShape shapes[] = {{1, 1, 1, 1, 4, 4}, {2, 3, 13, 7, 8, 12}, {1, 2, 5, 600, 16, 4}};
    for (const DType dtype : testing::kStorage)
        for (const LinearShape& s : shapes) {
            expect_reference(s, dtype, {});
            expect_reference(s, dtype, {.normaliser = Normaliser::magnitude, .gate = true});
            expect_reference(s, dtype,
                             {.features = Activation::sigmoid,
                              .key_weights = true,
                              .query_weights = true,
                              .gate = true});
        }
}

TEST(LinearAttention, FeaturesAndNormalisers) {
    const LinearShape s{2, 2, 9, 11, 8, 8};
    for (const Activation features :
         {Activation::relu, Activation::sigmoid, Activation::exp, Activation::elu_plus_one})
        expect_reference(s, DType::f32, {.features = features, .key_weights = true});
    expect_reference(s, DType::f32, {.features = Activation::none, .normaliser = Normaliser::none});
    for (const Normaliser normaliser : {Normaliser::none, Normaliser::sum, Normaliser::magnitude})
        expect_reference(s, DType::f32, {.normaliser = normaliser, .turned = true});
}

// Softmax over features, given beforehand: weights of every query are then at least 0 and, divided
// by their sum, constant values come out as they are.
TEST(LinearAttention, ConstantValuesPass) {
    vk::Stream stream(device());
    const auto q = testing::input(stream, {1, 50, 2, 8}, 1, DType::f32),
               k = testing::input(stream, {1, 70, 2, 8}, 2, DType::f32);
    const std::vector<float> ones(70 * 2 * 4, 1.5f);
    const Tensor o = linear_attention(stream, q.device, k.device,
                                      upload(stream, ones, {1, 70, 2, 4}, DType::f32));
    for (const float value : to_host(stream, o)) EXPECT_NEAR(value, 1.5f, 1e-4f);
}

// Parts of tokens are merged in one order, and q, k and v may lie side by side.
TEST(LinearAttention, LongSequencesFromColumns) {
    vk::Stream stream(device());
    const int64_t tokens = 20001, width = 16;
    const auto all = testing::input(stream, {1, tokens, 3 * width}, 1, DType::f32);
    const auto part = [&](int64_t i) {
        return all.device.columns(i * width, width).reshape({1, tokens, 2, width / 2});
    };
    const auto run = [&] {
        return to_host(stream, linear_attention(stream, part(0), part(1), part(2)));
    };
    const auto found = run();
    EXPECT_EQ(found, run());
    const auto dense = [&](int64_t i) { return compact(stream, part(i)); };
    EXPECT_EQ(found, to_host(stream, linear_attention(stream, dense(0), dense(1), dense(2))));

    // One query against the pairs.
    const auto q = to_host(stream, dense(0)), k = to_host(stream, dense(1)),
               v = to_host(stream, dense(2));
    const auto expected = reference::linear_attention(
        {.q = std::span(q).first(width), .k = k, .v = v},
        {1, 2, 1, static_cast<size_t>(tokens), static_cast<size_t>(width) / 2,
         static_cast<size_t>(width) / 2});
    EXPECT_TRUE(close(std::span(found).first(width), expected, allowed(DType::f32)));
}

TEST(LinearAttention, PartsStandAlone) {
    vk::Stream stream(device());
    const int64_t batch = 2, tokens = 300, heads = 3, d = 8;
    const auto x = testing::input(stream, {batch, tokens, heads, d}, 1, DType::f16);
    const auto vectors = testing::input(stream, {batch, heads, d}, 2, DType::f32);
    const auto weights = testing::input(stream, {batch, heads, tokens}, 3, DType::f32);
    const auto sums = to_host(stream, feature_sums(stream, x.device, weights.device, 0.5f));
    const auto dots = [&](DotFinish finish) {
        return to_host(stream, feature_dots(stream, x.device, vectors.device, 0.3f, finish, 2.0f));
    };
    std::vector<float> expected_sums(batch * heads * d), plain, clamped, sigmoid, reciprocal;
    for (int64_t line = 0; line < batch * heads; ++line)
        for (int64_t t = 0; t < tokens; ++t) {
            double dot = 0;
            for (int64_t c = 0; c < d; ++c) {
                const double value =
                    x.host[((line / heads * tokens + t) * heads + line % heads) * d + c];
                dot += 0.3 * value * vectors.host[line * d + c];
                expected_sums[line * d + c] +=
                    0.5f * static_cast<float>(value * weights.host[line * tokens + t]);
            }
            plain.push_back(static_cast<float>(dot));
            clamped.push_back(static_cast<float>(std::clamp(dot, -1.0, 1.0)));
            sigmoid.push_back(static_cast<float>(1 / (1 + std::exp(-dot))));
            reciprocal.push_back(static_cast<float>(1 / (dot + 2)));
        }
    const Tolerance near{1e-4f, 1e-4f};
    EXPECT_TRUE(close(sums, expected_sums, near));
    EXPECT_TRUE(close(dots(DotFinish::plain), plain, near));
    EXPECT_TRUE(close(dots(DotFinish::clamped), clamped, near));
    EXPECT_TRUE(close(dots(DotFinish::sigmoid), sigmoid, near));
    EXPECT_TRUE(close(dots(DotFinish::reciprocal), reciprocal, {1e-3f, 1e-2f}));
}

TEST(LinearAttention, RefusesWhatDoesNotFit) {
    vk::Stream stream(device());
    const auto tensor = [](Shape shape, DType dtype = DType::f32) {
        return empty(device(), std::move(shape), dtype);
    };
    const Tensor q = tensor({1, 5, 2, 8}), k = tensor({1, 7, 2, 8}), v = tensor({1, 7, 2, 4});
    const auto message = [&](const Tensor& keys, const LinearAttentionOptions& options) {
        try {
            linear_attention(stream, q, keys, v, options);
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string("accepted");
    };
    using ::testing::HasSubstr;
    EXPECT_EQ(message(k, {}), "accepted");
    EXPECT_THAT(message(tensor({1, 7, 2, 12}), {}), HasSubstr("q and k"));
    EXPECT_THAT(message(tensor({1, 7, 2, 6}), {}), HasSubstr("multiple of 4"));
    EXPECT_THAT(message(k, {.key_weights = tensor({1, 2, 5})}), HasSubstr("key_weights"));
    EXPECT_THAT(message(k, {.query_weights = tensor({1, 2, 7})}), HasSubstr("query_weights"));
    EXPECT_THAT(message(k, {.gate = tensor({1, 5, 2, 8})}), HasSubstr("gate"));
    EXPECT_THAT(message(k, {.normaliser = Normaliser::magnitude, .key_weights = tensor({1, 2, 7})}),
                HasSubstr("magnitude"));
    EXPECT_THROW(read_state(stream, q, tensor({1, 2, 4, 8})), Error);
}

}  // namespace
}  // namespace fovea
