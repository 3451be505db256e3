#include <cmath>

#include "backend/ops/elementwise.h"
#include "backend/ops/gemm.h"
#include "backend/ops/grid.h"
#include "backend/ops/linear_attention.h"
#include "backend/ops/mix.h"
#include "backend/ops/permute.h"
#include "vision/attentions/modules.h"

namespace fovea::attentions {
namespace {

/// ContMix of OverLoCK: kernels of every token from its affinities to the means of a coarse grid,
/// half of the channels with a small kernel, half with a large one.
/// https://arxiv.org/abs/2502.20087
class ContMix : public BackboneAttention {
  public:
    explicit ContMix(const Source& s)
        : heads_(s.heads),
          pooled_(s.options.value("pooled", 7)),
          query_(s.weights.linear("query", s.width, s.width / 2)),
          key_(s.weights.linear("key", s.width, s.width / 2)),
          mixed_(s.weights.linear("mixed", s.width, s.width)),
          gate_(s.weights.linear("gate", s.width, s.width)),
          out_(s.weights.linear("out", s.width, s.width)) {
        const int64_t large = s.options.value("kernel", 7), small = s.options.value("small", 5);
        require(pooled_ >= 1 && large >= 1 && small >= 1 && large % 2 == 1 && small % 2 == 1,
                "[contmix] odd kernels and at least one mean expected, found {}, {} and {}", large,
                small, pooled_);
        local_ = s.weights.depthwise("local", s.width, large);
        // Of both kernels in one tensor, the small one first.
        const int64_t means = pooled_ * pooled_, all = small * small + large * large;
        const auto weight = s.weights.floats("kernels.weight", {all, means}),
                   bias = s.weights.floats("kernels.bias", {all});
        const auto kernel = [&](int64_t side, int64_t first, const char* name) {
            const int64_t taps = side * side, padded = round_up(taps, 4);
            // Logits are q·k (width / heads)^-1/2: the scale is in these weights.
            const float scale = 1 / std::sqrt(static_cast<float>(s.head_dim()));
            std::vector<float> turned(means * padded, 0.0f);
            for (int64_t tap = 0; tap < taps; ++tap)
                for (int64_t i = 0; i < means; ++i)
                    turned[i * padded + tap] = scale * weight[(first + tap) * means + i];
            const Shape table{s.heads, 2 * side - 1, 2 * side - 1};
            return Kernel{taps, s.weights.put(turned, {means, padded}),
                          s.weights.put_f32(std::span(bias).subspan(first, taps), {taps}),
                          s.weights.put_f32(s.weights.floats(name, table), table)};
        };
        small_ = kernel(small, 0, "relative.small");
        large_ = kernel(large, small * small, "relative.large");
    }

    Tensor forward(vk::Stream& stream, const Tensor& x, const Tensor& residual) const override {
        const int64_t batch = x.dim(0), width = x.dim(3), depth = width / 2 / heads_;
        const Tensor q = heads_of_grid(linear(stream, x, query_), heads_);
        const Tensor means = average_pool(stream, x, pooled_, pooled_);
        const Tensor keys = permute(
            stream, linear(stream, means, key_).reshape({batch, pooled_ * pooled_, heads_, depth}),
            {0, 2, 3, 1});  // (batch, heads, depth, means)
        const Tensor mixed = concat(
            stream, {mix(stream, x, q, keys, small_, 0), mix(stream, x, q, keys, large_, 1)});
        const Tensor local = depthwise_conv2d(stream, x, local_.weight, {.bias = local_.bias});
        const Tensor y = multiply(stream, linear_residual(stream, mixed, mixed_, local),
                                  linear(stream, x, gate_, Activation::silu));
        return linear_residual(stream, y, out_, residual);
    }

  private:
    struct Kernel {
        int64_t taps;
        Tensor weight;    ///< (means, taps and more up to a multiple of 4)
        Tensor bias;      ///< (taps) f32
        Tensor relative;  ///< f32: see local_weights()
    };

    /// One half of the channels: (batch, rows, columns, width / 2).
    Tensor mix(vk::Stream& stream, const Tensor& x, const Tensor& q, const Tensor& keys,
               const Kernel& kernel, int64_t half) const {
        const int64_t batch = x.dim(0), rows = x.dim(1), columns = x.dim(2), width = x.dim(3);
        // q·keys·weight in the order that makes keys·weight a state of a few numbers a head.
        const Tensor state = convert(stream, gemm(stream, keys, kernel.weight), DType::f32);
        const Tensor logits = read_state(stream, q, state)
                                  .reshape({batch, rows, columns, heads_, kernel.weight.dim(1)})
                                  .columns(0, kernel.taps);
        const Tensor weights = local_weights(stream, logits, kernel.relative, kernel.bias);
        const Tensor v = x.columns(half * width / 2, width / 2)
                             .reshape({batch, rows, columns, heads_, width / 2 / heads_});
        return local_mix(stream, v, weights).reshape({batch, rows, columns, width / 2});
    }

    int64_t heads_, pooled_;
    Linear query_, key_, mixed_, gate_, out_;
    Convolution local_;
    Kernel small_, large_;
};

}  // namespace

Module contmix(const Source& source) {
    return std::make_unique<ContMix>(source);
}

}  // namespace fovea::attentions
