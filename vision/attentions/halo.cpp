#include <cmath>

#include "backend/ops/gemm.h"
#include "backend/ops/grid.h"
#include "backend/ops/permute.h"
#include "vision/attentions/modules.h"

namespace fovea::attentions {
namespace {

/// Blocked local attention of HaloNet: a block of queries sees itself and a rim around it, zeros
/// beyond the border, with logits by relative row and column: https://arxiv.org/abs/2103.12731
///
/// Those logits, query · table[key's place − query's place], are further dimensions of the heads: a
/// query has its products with all rows (columns) of its window there, a key a one at its own.
class Halo : public BackboneAttention {
  public:
    explicit Halo(const Source& s)
        : heads_(s.heads),
          block_(s.options.value("block", 8)),
          rim_(s.options.value("halo", 3)),
          window_(block_ + 2 * rim_),
          q_(s.weights.linear("q", s.width, s.width)),
          kv_(s.weights.linear("kv", s.width, 2 * s.width)),
          out_(s.weights.linear("out", s.width, s.width)) {
        require(block_ >= 1 && rim_ >= 0,
                "[halo] a block of at least 1 and a halo of at least 0 expected, found {} and {}",
                block_, rim_);
        places_ = round_up(window_, 4);
        span_ = round_up(2 * window_ + 3, 4);
        const int64_t d = s.head_dim();
        rows_ = load_table(s, "relative.rows");
        columns_ = load_table(s, "relative.columns");
        const float one = std::sqrt(static_cast<float>(d));  // attention's scale takes it back
        std::vector<float> ones(window_ * window_ * heads_ * 2 * places_, 0.0f);
        for (int64_t i = 0; i < window_ * window_ * heads_; ++i) {
            const int64_t row = i / heads_ / window_, column = i / heads_ % window_;
            ones[i * 2 * places_ + window_ - 1 - row] = one;
            ones[i * 2 * places_ + places_ + window_ - 1 - column] = one;
        }
        ones_ = s.weights.put(ones, {window_ * window_ * heads_, 2 * places_});
    }

    Tensor forward(vk::Stream& stream, const Tensor& x, const Tensor& residual) const override {
        const int64_t batch = x.dim(0), width = x.dim(3), d = width / heads_;
        const int64_t rows = round_up(x.dim(1), block_), columns = round_up(x.dim(2), block_);
        const int64_t down = rows / block_, across = columns / block_;
        const int64_t blocks = batch * down * across;
        const Tensor q = queries(stream, linear(stream, fit_grid(stream, x, rows, columns), q_));

        // Keys and values are padded, not tokens: beyond the border both are 0, and seen.
        const int64_t wide = columns + 2 * rim_, high = rows + 2 * rim_;
        const Tensor kv = crop_grid(stream, linear(stream, x, kv_), -rim_, -rim_, high, wide);
        const Tensor windows =
            strided_copy(stream, kv, {batch, down, across, window_, window_, 2 * width},
                         {high * wide * 2 * width, block_ * wide * 2 * width, block_ * 2 * width,
                          wide * 2 * width, 2 * width, 1},
                         "halo_windows")
                .reshape({blocks, window_ * window_, 2 * width});
        const Tensor k = concat(stream, {heads_of(windows, heads_, 0, 2), ones_});
        const Tensor o = attend(stream, q, k, heads_of(windows, heads_, 1, 2), dense(),
                                {.scale = 1 / std::sqrt(static_cast<float>(d))});
        const Tensor grid = permute(stream, o.reshape({batch, down, across, block_, block_, width}),
                                    {0, 1, 3, 2, 4, 5})
                                .reshape({batch, rows, columns, width});
        return linear_residual(stream, fit_grid(stream, grid, x.dim(1), x.dim(2)), out_, residual);
    }

  private:
    /// (2 window − 1, head_dim), from the last: strides of queries() cannot be negative.
    Tensor load_table(const Source& s, const char* name) const {
        const int64_t d = s.head_dim(), stored_span = 2 * window_ - 1;
        const auto stored = s.weights.floats(name, {stored_span, d});
        std::vector<float> turned(d * span_, 0.0f);
        for (int64_t m = 0; m < stored_span; ++m)
            for (int64_t i = 0; i < d; ++i)
                turned[i * span_ + m] = stored[(stored_span - 1 - m) * d + i];
        return s.weights.put(turned, {d, span_});
    }

    /// Blocks of queries (blocks, tokens, heads, head_dim and their places) of q (batch, rows,
    /// columns, width). Place j of the query in row y is product window − 1 − y + j: in tables and
    /// places from the last, product y + j.
    Tensor queries(vk::Stream& stream, const Tensor& q) const {
        const int64_t batch = q.dim(0), width = q.dim(3), d = width / heads_, b = block_;
        const int64_t down = q.dim(1) / b, across = q.dim(2) / b, blocks = batch * down * across;
        const Tensor own =
            permute(stream, q.reshape({batch, down, b, across, b, width}), {0, 1, 3, 2, 4, 5})
                .reshape({blocks * b * b * heads_, d});
        const int64_t column = heads_ * span_, row = b * column, block = b * row;
        const Shape shape{blocks, b, b, heads_, places_};
        const Tensor by_row = strided_copy(stream, gemm(stream, own, rows_), shape,
                                           {block, row + 1, column, span_, 1}, "halo_places");
        const Tensor by_column = strided_copy(stream, gemm(stream, own, columns_), shape,
                                              {block, row, column + 1, span_, 1}, "halo_places");
        return concat(stream, {own, by_row, by_column})
            .reshape({blocks, b * b, heads_, d + 2 * places_});
    }

    int64_t heads_, block_, rim_, window_;
    int64_t places_ = 0;  ///< of rows, and of columns, of a window, and more
    int64_t span_ = 0;    ///< of a table, and more
    Linear q_, kv_, out_;
    Tensor rows_, columns_;  ///< (head_dim, span)
    Tensor ones_;            ///< of keys: (tokens of a window · heads, 2 places)
};

}  // namespace

Module halo(const Source& source) {
    return std::make_unique<Halo>(source);
}

}  // namespace fovea::attentions
