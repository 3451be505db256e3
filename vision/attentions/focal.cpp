#include "backend/ops/elementwise.h"
#include "backend/ops/mix.h"
#include "backend/ops/reduce.h"
#include "vision/attentions/modules.h"

namespace fovea::attentions {
namespace {

/// Focal modulation of FocalNet: https://arxiv.org/abs/2203.11926
class Focal : public BackboneAttention {
  public:
    explicit Focal(const Source& s)
        : query_(slice(s, 0, s.width)),
          context_(slice(s, s.width, s.width)),
          gates_(slice(s, 2 * s.width, levels(s) + 1)),
          modulator_(s.weights.linear("modulator", s.width, s.width)),
          out_(s.weights.linear("out", s.width, s.width)) {
        const int64_t window = s.options.value("window", 3);
        require(levels(s) >= 1 && levels(s) <= 3 && window >= 1 && window % 2 == 1,
                "[focal] 1 to 3 levels and an odd window expected, found {} and {}", levels(s),
                window);
        for (int64_t i = 0; i < levels(s); ++i)
            levels_.push_back(
                s.weights.depthwise("levels." + std::to_string(i), s.width, window + 2 * i));
    }

    Tensor forward(vk::Stream& stream, const Tensor& x, const Tensor& residual) const override {
        std::vector<Tensor> contexts;
        Tensor context = linear(stream, x, context_);
        for (const Convolution& level : levels_) {
            context = depthwise_conv2d(stream, context, level.weight,
                                       {.bias = level.bias, .activation = Activation::gelu});
            contexts.push_back(context);
        }
        const Tensor tokens = context.reshape({x.dim(0), x.dim(1) * x.dim(2), x.dim(3)});
        contexts.push_back(activate(stream, mean_tokens(stream, tokens), Activation::gelu));
        const Tensor sum = weighted_sum(stream, contexts, linear(stream, x, gates_));
        const Tensor y =
            multiply(stream, linear(stream, x, query_), linear(stream, sum, modulator_));
        return linear_residual(stream, y, out_, residual);
    }

  private:
    static int64_t levels(const Source& s) { return s.options.value("levels", 3); }
    static Linear slice(const Source& s, int64_t first, int64_t count) {
        return s.weights.linear("input", s.width, 2 * s.width + levels(s) + 1, first, count);
    }

    Linear query_, context_, gates_, modulator_, out_;
    std::vector<Convolution> levels_;
};

}  // namespace

Module focal(const Source& source) {
    return std::make_unique<Focal>(source);
}

}  // namespace fovea::attentions
