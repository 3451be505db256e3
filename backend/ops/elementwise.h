#pragma once

#include <initializer_list>
#include <span>

#include "backend/ops/activation.h"
#include "backend/tensor.h"

namespace fovea {

/// b has the shape of a, or one that a's ends with: then it repeats over a's leading axes.
Tensor add(vk::Stream& stream, const Tensor& a, const Tensor& b);
Tensor multiply(vk::Stream& stream, const Tensor& a, const Tensor& b);

struct Term {
    float coefficient = 1;
    Tensor x;
};

/// Σ coefficient · x of one to four terms of one shape.
Tensor linear_combination(vk::Stream& stream, std::span<const Term> terms);
Tensor linear_combination(vk::Stream& stream, std::initializer_list<Term> terms);

Tensor activate(vk::Stream& stream, const Tensor& x, Activation activation);

/// x · scale + shift, both (n) for the last axis of x.
Tensor affine(vk::Stream& stream, const Tensor& x, const Tensor& scale, const Tensor& shift);

/// limit · tanh(x / limit)
Tensor soft_clamp(vk::Stream& stream, const Tensor& x, float limit);

/// f32 to f16 or back; the same tensor if it has that type already.
Tensor convert(vk::Stream& stream, const Tensor& x, DType dtype);

/// table (r, n), m (batch, r, n), or (batch, n) shared by all rows → (r, batch, n), so that one row
/// of the first axis is a modulation (batch, n): out[r][b] = table[r] + m[b][r].
Tensor broadcast_add(vk::Stream& stream, const Tensor& table, const Tensor& m);

}  // namespace fovea
