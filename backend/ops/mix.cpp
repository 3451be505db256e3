#include "backend/ops/mix.h"

#include <array>
#include <cmath>

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/params.h"

namespace fovea {
Tensor depthwise_conv2d(vk::Stream& stream, const Tensor& x, const Tensor& w,
                        const DepthwiseOptions& options) {
    constexpr std::string_view op = "depthwise_conv2d";
    count_of(op, x);
    count_of(op, w);
    require(
        x.rank() == 4 && w.rank() == 3 && w.dim(0) == w.dim(1) && w.dim(0) % 2 == 1 &&
            w.dim(2) == x.dim(3) && w.dtype() == x.dtype(),
        "[{}] x (b, h, w, c) and w (k, k, c) of one type, k odd, expected; found {} {} and {} {}",
        op, name_of(x.dtype()), to_string(x.shape()), name_of(w.dtype()), to_string(w.shape()));
    Tensor y = empty(stream.device(), x.shape(), x.dtype());
    require_like(op, "bias", options.bias, {x.dim(3)}, x.dtype());
    require_like(op, "residual", options.residual, y.shape(), x.dtype());
    const shader::MixParams params{.count = count_of(op, y) / 4,
                                   .rows = u32(x.dim(1)),
                                   .columns = u32(x.dim(2)),
                                   .heads = 1,
                                   .c4 = quads(op, x.dim(3)),
                                   .pitch = quads(op, x.pitch(x.dim(3))),
                                   .kernel = u32(w.dim(0)),
                                   .activation = static_cast<uint32_t>(options.activation),
                                   .bias = bool(options.bias),
                                   .residual = bool(options.residual)};
    const auto& shader = by_dtype(op, x.dtype(), shader::depthwise_f32, shader::depthwise_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup}),
                    {write(y), read_view(x), read(w), read(options.bias), read(options.residual)},
                    params, groups_for(params.count, kElementGroup), op);
    return y;
}

Tensor local_weights(vk::Stream& stream, const Tensor& logits, const Tensor& relative,
                     const Tensor& bias) {
    constexpr std::string_view op = "local_weights";
    count_of(op, logits);
    require(logits.rank() == 5 && relative && relative.rank() == 3 &&
                relative.dim(0) == logits.dim(3) && relative.dim(1) == relative.dim(2) &&
                relative.dim(1) % 2 == 1 && relative.dtype() == DType::f32,
            "[{}] logits (b, rows, columns, heads, taps) and relative f32 (heads, 2k - 1, 2k - 1) "
            "expected, found {} and {}",
            op, to_string(logits.shape()), to_string(relative.shape()));
    const int64_t kernel = (relative.dim(1) + 1) / 2, taps = kernel * kernel;
    require(taps == logits.dim(4), "[{}] {} logits for {} taps", op, logits.dim(4), taps);
    require(static_cast<bool>(bias), "[{}] a bias is absent", op);
    require_like(op, "bias", bias, {taps}, DType::f32);
    require(logits.dim(1) >= kernel && logits.dim(2) >= kernel,
            "[{}] a grid of at least {}×{} expected, found {}×{}", op, kernel, kernel,
            logits.dim(1), logits.dim(2));
    Shape shape = logits.shape();
    shape.back() = taps;
    Tensor y = empty(stream.device(), shape, logits.dtype());
    count_of(op, y);
    // A view's rows are of one head's taps: heads lie a pitch apart, tokens as many of them.
    const int64_t row = logits.pitch(logits.dim(4));
    const shader::MixParams params{.count = u32(y.numel() / taps),
                                   .rows = u32(logits.dim(1)),
                                   .columns = u32(logits.dim(2)),
                                   .heads = u32(logits.dim(3)),
                                   .pitch = u32(row * logits.dim(3)),
                                   .kernel = u32(kernel),
                                   .row_pitch = u32(row)};
    const auto& shader =
        by_dtype(op, logits.dtype(), shader::local_weights_f32, shader::local_weights_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup}),
                    {write(y), read_view(logits), read(relative), read(bias)}, params,
                    groups_for(params.count, kElementGroup), op);
    return y;
}

Tensor local_mix(vk::Stream& stream, const Tensor& v, const Tensor& weights) {
    constexpr std::string_view op = "local_mix";
    count_of(op, v);
    count_of(op, weights);
    require(v.rank() == 5 && weights.rank() == 5 && weights.dtype() == v.dtype(),
            "[{}] v (b, rows, columns, heads, c) and weights of five axes and its type expected, "
            "found {} and {}",
            op, to_string(v.shape()), to_string(weights.shape()));
    const auto kernel = static_cast<int64_t>(std::lround(std::sqrt(weights.dim(4))));
    Shape shape = v.shape();
    shape.back() = kernel * kernel;
    require_like(op, "weights", weights, shape, v.dtype());
    require(v.dim(1) >= kernel && v.dim(2) >= kernel,
            "[{}] a grid of at least {}×{} expected, found {}×{}", op, kernel, kernel, v.dim(1),
            v.dim(2));
    Tensor y = empty(stream.device(), v.shape(), v.dtype());
    const shader::MixParams params{.count = count_of(op, y) / 4,
                                   .rows = u32(v.dim(1)),
                                   .columns = u32(v.dim(2)),
                                   .heads = u32(v.dim(3)),
                                   .c4 = quads(op, v.dim(4)),
                                   .pitch = quads(op, v.pitch(v.dim(3) * v.dim(4))),
                                   .kernel = u32(kernel)};
    const auto& shader = by_dtype(op, v.dtype(), shader::local_mix_f32, shader::local_mix_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup}),
                    {write(y), read_view(v), read(weights)}, params,
                    groups_for(params.count, kElementGroup), op);
    return y;
}

Tensor weighted_sum(vk::Stream& stream, std::span<const Tensor> contexts, const Tensor& gates) {
    constexpr std::string_view op = "weighted_sum";
    require(!contexts.empty() && contexts.size() <= 4,
            "[{}] one to four contexts expected, found {}", op, contexts.size());
    const Tensor &first = contexts.front(), &last = contexts.back();
    count_of(op, first);
    count_of(op, last);
    for (const Tensor& context : contexts.first(contexts.size() - 1))
        require_like(op, "context", context, first.shape(), first.dtype());
    const int64_t c = first.dim(-1), rows = last.numel() / c;
    Shape gate_shape = first.shape();
    gate_shape.back() = std::ssize(contexts);
    require(last.shape() == first.shape() || last.shape() == Shape{first.dim(0), c},
            "[{}] a last context {} or ({}, {}) expected, found {}", op, to_string(first.shape()),
            first.dim(0), c, to_string(last.shape()));
    require_like(op, "last context", last, last.shape(), first.dtype());
    require(static_cast<bool>(gates), "[{}] gates are absent", op);
    require_like(op, "gates", gates, gate_shape, first.dtype());
    Tensor y = empty(stream.device(), first.shape(), first.dtype());
    const shader::MixParams params{.count = count_of(op, y) / 4,
                                   .rows = u32(y.numel() / c / rows),
                                   .heads = u32(std::ssize(contexts)),
                                   .c4 = quads(op, c)};
    std::array<Tensor, 3> others;
    std::copy(contexts.begin(), contexts.end() - 1, others.begin());
    const auto& shader =
        by_dtype(op, first.dtype(), shader::weighted_sum_f32, shader::weighted_sum_f16);
    stream.dispatch(
        stream.device().program(shader, {kElementGroup}),
        {write(y), read(gates), read(last), read(others[0]), read(others[1]), read(others[2])},
        params, groups_for(params.count, kElementGroup), op);
    return y;
}

}  // namespace fovea
