#pragma once

#include "backend/ops/activation.h"
#include "backend/tensor.h"

/// Attention whose weights are products of features φ(q)·φ(k): keys and values become a state of
/// head_dim × v_dim numbers a head, and time is linear in tokens. Shapes: heads of tokens x (batch,
/// tokens, heads, head_dim), f32 or f16, columns of wider tensors too (heads first: batch · heads
/// samples of one head); head_dim and v_dim multiples of 4. States, sums and what is a number a
/// token and head, (batch, heads, tokens), are f32. Tokens are summed in at most 64 parts: memory
/// does not grow with them. The same bits every time.
namespace fovea {

enum class Normaliser {
    none,
    sum,       ///< o divided by φ(q) · Σ φ(k) + eps
    magnitude  ///< MALA's: o = (1 + 1/(z + eps)) · o' − z · mean(v), o' and z means over keys
};

struct LinearAttentionOptions {
    /// φ of q and of k. Features over the whole head, as a softmax: apply them before, φ none.
    Activation features = Activation::elu_plus_one;
    Normaliser normaliser = Normaliser::sum;
    float eps = 1e-6f;
    Tensor key_weights;    ///< (batch, heads, kv_len): each multiplies its φ(k)
    Tensor query_weights;  ///< (batch, heads, q_len): each multiplies its row of o
    /// As q and k: read in place of φ(q) and φ(k) but in the normaliser, which knows no positions.
    /// For rotary embeddings of features.
    Tensor q_turned, k_turned;
    Tensor gate;  ///< as o: multiplies it
};

/// o_i = gate · query weight · Σ_j (φ(q_i) · w_j φ(k_j)) v_j, normalised as the options say, with z
/// = head_dim^-1/2 φ(q)·mean(φ(k)) and o' = head_dim^-1/2 φ(q) mean(φ(k) vᵀ) for
/// Normaliser::magnitude. q (batch, q_len, heads, head_dim), k (batch, kv_len, heads, head_dim), v
/// (…, v_dim); o like q with v_dim, of its type.
Tensor linear_attention(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                        const LinearAttentionOptions& options = {});

/// Its parts, for attentions that compute weights of their own from them.

/// factor · Σ over tokens of w · x: (batch, heads, head_dim)
Tensor feature_sums(vk::Stream& stream, const Tensor& x, const Tensor& weights = {},
                    float factor = 1);

enum class DotFinish { plain, reciprocal, sigmoid, clamped };  ///< d, 1/(d + eps), σ(d), −1 … 1

/// d = factor · x · vector of its head, finished: (batch, heads, tokens). Vectors (batch, heads,
/// head_dim).
Tensor feature_dots(vk::Stream& stream, const Tensor& x, const Tensor& vectors, float factor = 1,
                    DotFinish finish = DotFinish::plain, float eps = 1e-6f);

/// factor · Σ over tokens of w · k vᵀ: (batch, heads, head_dim, v_dim)
Tensor key_value_state(vk::Stream& stream, const Tensor& k, const Tensor& v,
                       const Tensor& weights = {}, float factor = 1);

/// x times the state of its head: (batch, tokens, heads, v_dim), of x's type. Any state will do.
Tensor read_state(vk::Stream& stream, const Tensor& x, const Tensor& state);

}  // namespace fovea
