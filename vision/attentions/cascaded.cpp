#include <cmath>
#include <string>

#include "backend/ops/elementwise.h"
#include "backend/ops/gemm.h"
#include "backend/ops/mix.h"
#include "backend/ops/permute.h"
#include "vision/attentions/modules.h"

namespace fovea::attentions {
namespace {

/// Cascaded group attention of EfficientViT in windows: every head has its share of the channels
/// and adds the output of the head before: https://arxiv.org/abs/2305.07027
class Cascaded : public BackboneAttention {
  public:
    explicit Cascaded(const Source& s)
        : window_(s.options.value("window", 7)), key_dim_(s.options.value("key_dim", 16)) {
        const auto kernels =
            s.options.value("kernels", std::vector<int64_t>(static_cast<size_t>(s.heads), 5));
        require(
            window_ >= 1 && key_dim_ >= 8 && key_dim_ % 8 == 0 && std::ssize(kernels) == s.heads,
            "[cascaded] a window, a key_dim of a multiple of 8 and {} kernels expected, found "
            "{}, {} and {} kernels",
            s.heads, window_, key_dim_, kernels.size());
        const int64_t width = s.head_dim(), side = 2 * window_ - 1;
        const auto biases = s.weights.floats("biases", {s.heads, window_ * window_});
        for (int64_t i = 0; i < s.heads; ++i) {
            // By distances: the same up and down, left and right.
            std::vector<float> relative;
            for (int64_t row = 0; row < side; ++row)
                for (int64_t column = 0; column < side; ++column)
                    relative.push_back(
                        biases[(i * window_ + std::abs(row - window_ + 1)) * window_ +
                               std::abs(column - window_ + 1)]);
            const auto name = "qkv." + std::to_string(i);
            const auto part = [&](int64_t first, int64_t count) {
                return s.weights.linear(name, width, 2 * key_dim_ + width, first, count);
            };
            heads_.push_back({part(0, key_dim_), part(key_dim_, key_dim_),
                              part(2 * key_dim_, width),
                              s.weights.depthwise("local." + std::to_string(i), key_dim_,
                                                  kernels[static_cast<size_t>(i)]),
                              s.weights.put_f32(relative, {1, side, side})});
        }
        out_ = s.weights.linear("out", s.width, s.width);
    }

    Tensor forward(vk::Stream& stream, const Tensor& x, const Tensor& residual) const override {
        const int64_t w = window_, rows = round_up(x.dim(1), w), columns = round_up(x.dim(2), w);
        const int64_t heads = std::ssize(heads_), width = x.dim(3) / heads;
        const int64_t down = x.dim(0) * rows / w, across = columns / w, windows = down * across;
        const Tensor whole = fit_grid(stream, x, rows, columns);
        const Tensor shares =
            permute(stream, whole.reshape({down, w, across, w, heads, width}), {4, 0, 2, 1, 3, 5})
                .reshape({heads, windows, w, w, width});
        const Tensor outputs = empty(stream.device(), {heads, windows, w * w, width}, x.dtype());
        Tensor own = shares.index(0);
        for (int64_t i = 0; i < heads; ++i) {
            if (i > 0) own = add(stream, own, shares.index(i));
            own = head(stream, heads_[static_cast<size_t>(i)], own);
            stream.copy(read(own), write(outputs.index(i)));
        }
        const Tensor grid =
            permute(stream, outputs.reshape({heads, down, across, w, w, width}), {1, 3, 2, 4, 0, 5})
                .reshape(whole.shape());
        return gemm(stream, fit_grid(stream, grid, x.dim(1), x.dim(2)), out_.weight,
                    {.bias = out_.bias,
                     .gate = {},
                     .residual = residual,
                     .x_activation = Activation::relu});
    }

  private:
    struct Head {
        Linear q, k, v;
        Convolution local;
        Tensor relative;  ///< (1, 2 window − 1, 2 window − 1)
    };

    /// x (windows, window, window, width), like the result.
    Tensor head(vk::Stream& stream, const Head& head, const Tensor& x) const {
        const Tensor q = depthwise_conv2d(stream, linear(stream, x, head.q), head.local.weight,
                                          {.bias = head.local.bias});
        const auto alone = [](const Tensor& of) { return heads_of_grid(of, 1); };
        return attend(stream, alone(q), alone(linear(stream, x, head.k)),
                      alone(linear(stream, x, head.v)), dense(), {.relative_bias = head.relative})
            .reshape(x.shape());
    }

    int64_t window_, key_dim_;
    std::vector<Head> heads_;
    Linear out_;
};

}  // namespace

Module cascaded(const Source& source) {
    return std::make_unique<Cascaded>(source);
}

}  // namespace fovea::attentions
