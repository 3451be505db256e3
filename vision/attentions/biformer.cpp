#include "backend/ops/mix.h"
#include "backend/ops/routed.h"
#include "vision/attentions/modules.h"

namespace fovea::attentions {
namespace {

/// Bi-level routing attention of BiFormer: https://arxiv.org/abs/2303.08810
class BiFormer : public BackboneAttention {
  public:
    explicit BiFormer(const Source& s)
        : heads_(s.heads),
          regions_(s.options.value("regions", 7)),
          keep_(s.options.value("keep", 4)),
          qkv_(s.weights.linear("qkv", s.width, 3 * s.width)),
          out_(s.weights.linear("out", s.width, s.width)),
          local_(s.weights.depthwise("local", s.width, s.options.value("kernel", 5))) {
        require(regions_ >= 1 && keep_ >= 1 && keep_ <= regions_ * regions_,
                "[biformer] 1 to {} of {}×{} regions to keep expected, found {}",
                regions_ * regions_, regions_, regions_, keep_);
    }

    Tensor forward(vk::Stream& stream, const Tensor& x, const Tensor& residual) const override {
        const int64_t rows = round_up(x.dim(1), regions_), columns = round_up(x.dim(2), regions_);
        const Tensor whole = fit_grid(stream, x, rows, columns);
        const Tensor qkv = linear(stream, whole, qkv_);
        const auto part = [&](int64_t i) { return heads_of_grid(qkv, heads_, i, 3); };
        const auto u = [](int64_t n) { return static_cast<uint32_t>(n); };
        const Tensor o = routed_attention(stream, part(0), part(1), part(2),
                                          {.rows = u(rows),
                                           .columns = u(columns),
                                           .region_rows = u(regions_),
                                           .region_columns = u(regions_),
                                           .keep = u(keep_)});
        const int64_t width = x.dim(3);
        const Tensor sum =
            depthwise_conv2d(stream, qkv.columns(2 * width, width), local_.weight,
                             {.bias = local_.bias, .residual = o.reshape(whole.shape())});
        return linear_residual(stream, fit_grid(stream, sum, x.dim(1), x.dim(2)), out_, residual);
    }

  private:
    int64_t heads_, regions_, keep_;
    Linear qkv_, out_;
    Convolution local_;
};

}  // namespace

Module biformer(const Source& source) {
    return std::make_unique<BiFormer>(source);
}

}  // namespace fovea::attentions
