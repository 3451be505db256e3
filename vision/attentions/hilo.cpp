#include "backend/ops/elementwise.h"
#include "backend/ops/grid.h"
#include "vision/attentions/modules.h"

namespace fovea::attentions {
namespace {

/// HiLo of LITv2: some heads attend inside windows, the others to means of windows.
/// https://arxiv.org/abs/2205.13213
class HiLo : public BackboneAttention {
  public:
    explicit HiLo(const Source& s)
        : window_(s.options.value("window", 2)),
          low_heads_(static_cast<int64_t>(static_cast<double>(s.heads) *
                                          s.options.value("low_share", 0.9))),
          high_heads_(s.heads - low_heads_) {
        require(window_ >= 1 && low_heads_ >= 0 && high_heads_ >= 0,
                "[hilo] a window of at least 1 and a low_share of 0 to 1 expected, found {} and {}",
                window_, s.options.dump());
        const int64_t low = low_heads_ * s.head_dim(), high = high_heads_ * s.head_dim();
        if (low > 0) {
            low_q_ = s.weights.linear("low.q", s.width, low);
            low_kv_ = s.weights.linear("low.kv", s.width, 2 * low);
            low_out_ = s.weights.linear("low.out", low, low);
        }
        if (high > 0) {
            high_qkv_ = s.weights.linear("high.qkv", s.width, 3 * high);
            high_out_ = s.weights.linear("high.out", high, high);
        }
    }

    Tensor forward(vk::Stream& stream, const Tensor& x, const Tensor& residual) const override {
        const int64_t rows = round_up(x.dim(1), window_), columns = round_up(x.dim(2), window_);
        const Tensor whole = fit_grid(stream, x, rows, columns);
        if (high_heads_ == 0)
            return linear_residual(stream, low(stream, x, whole), low_out_, residual);
        if (low_heads_ == 0)
            return linear_residual(stream, high(stream, x, whole), high_out_, residual);
        return add(stream,
                   concat(stream, {linear(stream, high(stream, x, whole), high_out_),
                                   linear(stream, low(stream, x, whole), low_out_)}),
                   residual);
    }

  private:
    Tensor high(vk::Stream& stream, const Tensor& x, const Tensor& whole) const {
        const Tensor qkv = linear(stream, whole, high_qkv_);
        const auto part = [&](int64_t i) { return heads_of_grid(qkv, high_heads_, i, 3); };
        // Windows one beside the other: queries of a window share it.
        const auto side = static_cast<uint32_t>(window_);
        const auto inside = neighborhood(
            {.shape = {static_cast<uint32_t>(whole.dim(1)), static_cast<uint32_t>(whole.dim(2))}},
            {.window = {side, side}, .stride = {side, side}});
        const Tensor o = attend(stream, part(0), part(1), part(2), inside);
        return fit_grid(stream,
                        o.reshape({whole.dim(0), whole.dim(1), whole.dim(2), qkv.dim(3) / 3}),
                        x.dim(1), x.dim(2));
    }

    Tensor low(vk::Stream& stream, const Tensor& x, const Tensor& whole) const {
        const Tensor means = window_ == 1 ? whole
                                          : average_pool(stream, whole, whole.dim(1) / window_,
                                                         whole.dim(2) / window_);
        const Tensor q = linear(stream, x, low_q_), kv = linear(stream, means, low_kv_);
        const Tensor o =
            attend(stream, heads_of_grid(q, low_heads_), heads_of_grid(kv, low_heads_, 0, 2),
                   heads_of_grid(kv, low_heads_, 1, 2), dense());
        return o.reshape(q.shape());
    }

    int64_t window_, low_heads_, high_heads_;
    Linear low_q_, low_kv_, low_out_, high_qkv_, high_out_;
};

}  // namespace

Module hilo(const Source& source) {
    return std::make_unique<HiLo>(source);
}

}  // namespace fovea::attentions
