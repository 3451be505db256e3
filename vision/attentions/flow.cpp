#include "backend/ops/elementwise.h"
#include "backend/ops/linear_attention.h"
#include "backend/ops/softmax.h"
#include "vision/attentions/modules.h"

namespace fovea::attentions {
namespace {

/// Flow-Attention of Flowformer: https://arxiv.org/abs/2202.06258
class Flow : public BackboneAttention {
  public:
    explicit Flow(const Source& s)
        : heads_(s.heads),
          features_(s.weights.linear("qkv", s.width, 3 * s.width, 0, 2 * s.width)),
          value_(s.weights.linear("qkv", s.width, 3 * s.width, 2 * s.width, s.width)),
          out_(s.weights.linear("out", s.width, s.width)) {}

    Tensor forward(vk::Stream& stream, const Tensor& x, const Tensor& residual) const override {
        const Tensor qk = linear(stream, x, features_, Activation::sigmoid);
        const Tensor q = heads_of_grid(qk, heads_, 0, 2), k = heads_of_grid(qk, heads_, 1, 2);
        const Tensor v = linear(stream, x, value_);
        const auto inverse = [&](const Tensor& of, const Tensor& sums) {
            return feature_dots(stream, of, sums, 1, DotFinish::reciprocal);
        };
        // One over what flows into each query and out of each key, then both with that conserved.
        const Tensor incoming = inverse(q, feature_sums(stream, k));
        const Tensor outgoing = inverse(k, feature_sums(stream, q));
        const Tensor allocation =
            feature_dots(stream, q, feature_sums(stream, k, outgoing), 1, DotFinish::sigmoid);
        const Tensor competition = softmax(
            stream,
            feature_dots(stream, k, feature_sums(stream, q, incoming), 1, DotFinish::clamped));
        const auto tokens = static_cast<float>(x.dim(1) * x.dim(2));
        const Tensor o =
            linear_attention(stream, q, k, heads_of_grid(v, heads_),
                             {.features = Activation::none,
                              .normaliser = Normaliser::none,
                              .key_weights = linear_combination(stream, {{tokens, competition}}),
                              .query_weights = multiply(stream, incoming, allocation)});
        return linear_residual(stream, o.reshape(x.shape()), out_, residual);
    }

  private:
    int64_t heads_;
    Linear features_, value_, out_;
};

}  // namespace

Module flow(const Source& source) {
    return std::make_unique<Flow>(source);
}

}  // namespace fovea::attentions
