#pragma once

#include <span>

#include "backend/ops/activation.h"
#include "backend/tensor.h"

/// Convolutions of single channels and weighted sums of neighbours: f32 or f16, channels a multiple
/// of 4, sums in fp32.
namespace fovea {

struct DepthwiseOptions {
    Tensor bias;  ///< (c)
    Activation activation = Activation::none;
    Tensor residual;  ///< as the result, added after the activation
};

/// activation(x * w + bias) + residual, every channel by itself. x (b, h, w, c), columns of a wider
/// tensor too; w (k, k, c), k odd; zeros beyond the border: PyTorch's Conv2d(groups = c, padding =
/// k // 2).
Tensor depthwise_conv2d(vk::Stream& stream, const Tensor& x, const Tensor& w,
                        const DepthwiseOptions& options = {});

/// Softmax over the k · k taps of every token's window, which slides back inside at the borders.
/// logits (batch, rows, columns, heads, k · k), columns of a wider tensor too; added are relative
/// (heads, 2k − 1, 2k − 1), its entry (Δrow + k − 1, Δcolumn + k − 1), key minus query, and bias
/// (k · k), both f32. → (batch, rows, columns, heads, k · k). Rows and columns at least k.
Tensor local_weights(vk::Stream& stream, const Tensor& logits, const Tensor& relative,
                     const Tensor& bias);

/// Σ over the taps of such windows of weight · v: v (batch, rows, columns, heads, c), columns of a
/// wider tensor too, weights as local_weights() → like v.
Tensor local_mix(vk::Stream& stream, const Tensor& v, const Tensor& weights);

/// Σ_l gates[row, l] · contexts[l][row]: contexts (batch, …, c), at most 3 of one shape and then
/// one of it or (batch, c), one row for all of a sample; gates (batch, …, contexts).
Tensor weighted_sum(vk::Stream& stream, std::span<const Tensor> contexts, const Tensor& gates);

}  // namespace fovea
