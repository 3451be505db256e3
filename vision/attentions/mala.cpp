#include "backend/ops/linear_attention.h"
#include "vision/attentions/modules.h"

namespace fovea::attentions {
namespace {

/// MALA, magnitude-aware linear attention: https://arxiv.org/abs/2507.00698
class Mala : public BackboneAttention {
  public:
    explicit Mala(const Source& s)
        : heads_(s.heads),
          features_(s.weights.linear("qkvo", s.width, 4 * s.width, 0, 2 * s.width)),
          end_(s) {}

    Tensor forward(vk::Stream& stream, const Tensor& x, const Tensor& residual) const override {
        const int64_t rows = x.dim(1), columns = x.dim(2);
        const Tensor qk = linear(stream, x, features_, Activation::elu_plus_one);
        const Tensor q = heads_of_grid(qk, heads_, 0, 2), k = heads_of_grid(qk, heads_, 1, 2);
        const Tensor v = linear(stream, x, end_.value);
        const Tensor o = linear_attention(stream, q, k, heads_of_grid(v, heads_),
                                          {.features = Activation::none,
                                           .normaliser = Normaliser::magnitude,
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

Module mala(const Source& source) {
    return std::make_unique<Mala>(source);
}

}  // namespace fovea::attentions
