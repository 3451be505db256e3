#include <cmath>

#include "backend/ops/linear_attention.h"
#include "backend/ops/softmax.h"
#include "vision/attentions/modules.h"

namespace fovea::attentions {
namespace {

/// RALA, rank-augmented linear attention: https://arxiv.org/abs/2411.07635
class Rala : public BackboneAttention {
  public:
    explicit Rala(const Source& s)
        : heads_(s.heads),
          features_(s.weights.linear("qkvo", s.width, 4 * s.width, 0, 2 * s.width)),
          end_(s) {}

    Tensor forward(vk::Stream& stream, const Tensor& x, const Tensor& residual) const override {
        const int64_t rows = x.dim(1), columns = x.dim(2);
        const Tensor qk = linear(stream, x, features_, Activation::elu_plus_one);
        const Tensor q = heads_of_grid(qk, heads_, 0, 2), k = heads_of_grid(qk, heads_, 1, 2);
        const Tensor v = linear(stream, x, end_.value);
        // Keys weigh as much as the mean query attends to them. The paper's factor of the number of
        // tokens cancels against its means.
        const Tensor mean = feature_sums(stream, q, {}, 1 / static_cast<float>(rows * columns));
        const float scale = 1 / std::sqrt(static_cast<float>(q.dim(3)));
        const Tensor o =
            linear_attention(stream, q, k, heads_of_grid(v, heads_),
                             {.features = Activation::none,
                              .key_weights = softmax(stream, feature_dots(stream, k, mean, scale)),
                              .q_turned = turn(stream, q, rows, columns),
                              .k_turned = turn(stream, k, rows, columns)});
        return end_.finish(stream, x, v, o, residual);
    }

  private:
    int64_t heads_;
    Linear features_;
    GatedEnd end_;
};

}  // namespace

Module rala(const Source& source) {
    return std::make_unique<Rala>(source);
}

}  // namespace fovea::attentions
