#pragma once

#include "backend/tensor.h"

/// Attention with its map in memory, for few keys such as the words of a prompt: to read the map,
/// and to put another in its place. All keys are seen.
namespace fovea {

/// The map of every head, softmax(scale · q·k), fp32 throughout:
///   q       (batch, q_len, heads, head_dim), f32 or f16, may be Tensor::columns()
///   k       (batch, kv_len, heads, head_dim), likewise
///   scale   0: head_dim^-1/2
///   result  (batch, heads, q_len, kv_len) f32; at most kMapKeys keys: this is no tokens² map
Tensor probabilities(vk::Stream& stream, const Tensor& q, const Tensor& k, float scale = 0);

/// o = map · v of every head, (batch, q_len, heads, v_dim) of v's type; sums are fp32, and what the
/// rows of the map add up to is the caller's affair.
///   map  (batch, heads, q_len, kv_len) f32
///   v    (batch, kv_len, heads, v_dim), f32 or f16, may be Tensor::columns()
Tensor weighted_values(vk::Stream& stream, const Tensor& map, const Tensor& v);

inline constexpr int64_t kMapKeys = 512;

}  // namespace fovea
