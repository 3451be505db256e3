#include "backend/ops/linear_attention.h"

#include <algorithm>
#include <cmath>

#include "backend/ops/dispatch.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/permute.h"
#include "shaders.h"
#include "shaders/params.h"

namespace fovea {
namespace {

constexpr uint32_t kMostParts = 64;
constexpr uint32_t kPartTokens = 256;  // at least, where there are more than one part

/// What every kernel needs to know of heads of tokens.
shader::LinearParams params_of(std::string_view op, const Tensor& x) {
    count_of(op, x);
    require(x.rank() == 4 && x.dim(3) % 4 == 0,
            "[{}] (batch, tokens, heads, a multiple of 4) expected, found {}", op,
            to_string(x.shape()));
    const int64_t pitch = x.pitch(x.dim(2) * x.dim(3));
    require(pitch % 4 == 0, "[{}] columns of a tensor {} wide, a multiple of 4 expected", op,
            pitch);
    return {.lines = u32(x.dim(0) * x.dim(2)),
            .heads = u32(x.dim(2)),
            .tokens = u32(x.dim(1)),
            .d4 = u32(x.dim(3) / 4),
            .pitch = u32(pitch / 4)};
}

void require_weights(std::string_view op, std::string_view name, const Tensor& weights,
                     const Tensor& x) {
    require_like(op, name, weights, {x.dim(0), x.dim(2), x.dim(1)}, DType::f32);
}

/// Parts of tokens, each summed by its own invocations.
uint32_t cut(shader::LinearParams& p) {
    const uint32_t parts = std::clamp((p.tokens + kPartTokens - 1) / kPartTokens, 1u, kMostParts);
    p.chunk = (p.tokens + parts - 1) / parts;
    return parts;
}

/// factor · Σ over the first axis.
Tensor sum_parts(vk::Stream& stream, const Tensor& parts, Shape shape, float factor) {
    if (parts.dim(0) == 1 && factor == 1) return parts.reshape(std::move(shape));
    Tensor y = empty(stream.device(), std::move(shape), DType::f32);
    const shader::LinearParams p{
        .count = count_of("linear_attention", y) / 4, .chunk = u32(parts.dim(0)), .scale = factor};
    stream.dispatch(stream.device().program(shader::linear_sum_parts, {kElementGroup}),
                    {write(y), read(parts)}, p, groups_for(p.count, kElementGroup), "sum_parts");
    return y;
}

uint32_t linear_finish(DotFinish finish) {
    switch (finish) {
        case DotFinish::reciprocal:
            return shader::LINEAR_RECIPROCAL;
        case DotFinish::sigmoid:
            return shader::LINEAR_SIGMOID;
        case DotFinish::clamped:
            return shader::LINEAR_CLAMPED;
        case DotFinish::plain:
            break;
    }
    return shader::LINEAR_PLAIN;
}

/// What becomes of the product with the state.
struct Reading {
    uint32_t finish = shader::LINEAR_PLAIN;
    Tensor factors, means, gate;
    float eps = 0;
};

Tensor read_with(vk::Stream& stream, const Tensor& x, const Tensor& state, const Reading& reading) {
    constexpr std::string_view op = "linear_attention";
    shader::LinearParams p = params_of(op, x);
    require(state && state.rank() == 4 && state.dim(3) % 4 == 0,
            "[{}] a state (batch, heads, head_dim, a multiple of 4) expected, found {}", op,
            to_string(state.shape()));
    require_like(op, "state", state, {x.dim(0), x.dim(2), x.dim(3), state.dim(3)}, DType::f32);
    Tensor y = empty(stream.device(), {x.dim(0), x.dim(1), x.dim(2), state.dim(3)}, x.dtype());
    require_like(op, "gate", reading.gate, y.shape(), x.dtype());
    count_of(op, y);
    constexpr uint32_t tokens_each = 4;  // TOKENS of read.comp
    p.e4 = u32(state.dim(3) / 4);
    p.count = p.lines * ((p.tokens + tokens_each - 1) / tokens_each) * p.e4;
    p.eps = reading.eps;
    p.finish = reading.finish;
    p.flag = bool(reading.gate);
    const auto& shader = by_dtype(op, x.dtype(), shader::linear_read_f32, shader::linear_read_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup}),
                    {write(y), read_view(x), read(state), read(reading.factors),
                     read(reading.means), read(reading.gate)},
                    p, groups_for(p.count, kElementGroup), "linear_read");
    return y;
}

Tensor features_of(vk::Stream& stream, const Tensor& x, Activation features) {
    if (features == Activation::none) return x;
    return activate(stream, x.is_dense() ? x : compact(stream, x), features);
}

}  // namespace

Tensor feature_sums(vk::Stream& stream, const Tensor& x, const Tensor& weights, float factor) {
    constexpr std::string_view op = "feature_sums";
    shader::LinearParams p = params_of(op, x);
    require_weights(op, "weights", weights, x);
    const uint32_t parts = cut(p);
    const Shape shape{x.dim(0), x.dim(2), x.dim(3)};
    const Tensor sums = empty(stream.device(), {parts, int64_t{p.lines} * x.dim(3)}, DType::f32);
    p.count = count_of(op, sums) / 4;
    p.flag = bool(weights);
    const auto& shader = by_dtype(op, x.dtype(), shader::linear_sums_f32, shader::linear_sums_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup}),
                    {write(sums), read_view(x), read(weights)}, p,
                    groups_for(p.count, kElementGroup), op);
    return sum_parts(stream, sums, shape, factor);
}

Tensor feature_dots(vk::Stream& stream, const Tensor& x, const Tensor& vectors, float factor,
                    DotFinish finish, float eps) {
    constexpr std::string_view op = "feature_dots";
    shader::LinearParams p = params_of(op, x);
    require(static_cast<bool>(vectors), "[{}] vectors are absent", op);
    require_like(op, "vectors", vectors, {x.dim(0), x.dim(2), x.dim(3)}, DType::f32);
    Tensor y = empty(stream.device(), {x.dim(0), x.dim(2), x.dim(1)}, DType::f32);
    p.count = count_of(op, y);
    p.finish = linear_finish(finish);
    p.scale = factor;
    p.eps = eps;
    const auto& shader = by_dtype(op, x.dtype(), shader::linear_dots_f32, shader::linear_dots_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup}),
                    {write(y), read_view(x), read(vectors)}, p, groups_for(p.count, kElementGroup),
                    op);
    return y;
}

Tensor key_value_state(vk::Stream& stream, const Tensor& k, const Tensor& v, const Tensor& weights,
                       float factor) {
    constexpr std::string_view op = "key_value_state";
    shader::LinearParams p = params_of(op, k);
    const shader::LinearParams values = params_of(op, v);
    require(
        k.dim(0) == v.dim(0) && k.dim(1) == v.dim(1) && k.dim(2) == v.dim(2) &&
            k.dtype() == v.dtype(),
        "[{}] k and v of the same batch, tokens, heads and type expected, found {} {} and {} {}",
        op, name_of(k.dtype()), to_string(k.shape()), name_of(v.dtype()), to_string(v.shape()));
    require_weights(op, "weights", weights, k);
    const uint32_t parts = cut(p);
    p.e4 = values.d4;
    p.value_pitch = values.pitch;
    const Shape shape{k.dim(0), k.dim(2), k.dim(3), v.dim(3)};
    const Tensor states =
        empty(stream.device(), {parts, int64_t{p.lines} * k.dim(3) * v.dim(3)}, DType::f32);
    p.count = count_of(op, states) / 16;
    p.flag = bool(weights);
    const auto& shader =
        by_dtype(op, k.dtype(), shader::linear_state_f32, shader::linear_state_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup}),
                    {write(states), read_view(k), read_view(v), read(weights)}, p,
                    groups_for(p.count, kElementGroup), op);
    return sum_parts(stream, states, shape, factor);
}

Tensor read_state(vk::Stream& stream, const Tensor& x, const Tensor& state) {
    return read_with(stream, x, state, {});
}

Tensor linear_attention(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                        const LinearAttentionOptions& o) {
    constexpr std::string_view op = "linear_attention";
    params_of(op, q);
    params_of(op, k);
    require(q.dim(0) == k.dim(0) && q.dim(2) == k.dim(2) && q.dim(3) == k.dim(3) &&
                q.dtype() == k.dtype(),
            "[{}] q and k of the same batch, heads, head_dim and type expected, found {} {} and {} "
            "{}",
            op, name_of(q.dtype()), to_string(q.shape()), name_of(k.dtype()), to_string(k.shape()));
    require_like(op, "q_turned", o.q_turned, q.shape(), q.dtype());
    require_like(op, "k_turned", o.k_turned, k.shape(), k.dtype());
    require_weights(op, "key_weights", o.key_weights, k);
    require_weights(op, "query_weights", o.query_weights, q);
    require(o.normaliser != Normaliser::magnitude || (!o.query_weights && !o.key_weights),
            "[{}] the magnitude-aware normaliser knows no weights of queries or keys", op);

    const bool normalised = o.normaliser != Normaliser::none;
    const Tensor fq = o.q_turned && !normalised ? q : features_of(stream, q, o.features);
    const Tensor fk = o.k_turned && !normalised ? k : features_of(stream, k, o.features);
    const bool magnitude = o.normaliser == Normaliser::magnitude;
    const float mean = 1 / static_cast<float>(k.dim(1));
    const float scale = magnitude ? mean / std::sqrt(static_cast<float>(k.dim(3))) : 1;
    Reading reading{.factors = o.query_weights, .means = {}, .gate = o.gate, .eps = o.eps};
    if (normalised)
        reading.factors = feature_dots(stream, fq, feature_sums(stream, fk, o.key_weights), scale,
                                       magnitude ? DotFinish::plain : DotFinish::reciprocal, o.eps);
    if (magnitude) reading.means = feature_sums(stream, v, {}, mean);
    if (normalised && o.query_weights)
        reading.factors = multiply(stream, reading.factors, o.query_weights);
    if (reading.factors) reading.finish = shader::LINEAR_MULTIPLIED;
    if (magnitude) reading.finish = shader::LINEAR_MAGNITUDE;
    const Tensor state =
        key_value_state(stream, o.k_turned ? o.k_turned : fk, v, o.key_weights, scale);
    return read_with(stream, o.q_turned ? o.q_turned : fq, state, reading);
}

}  // namespace fovea
