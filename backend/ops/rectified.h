#pragma once

#include <cstdint>

#include "backend/ops/attention.h"
#include "backend/tensor.h"

namespace fovea {

struct RectifiedOptions {
    Grid grid;                 ///< of the video tokens, which come first
    uint32_t text_tokens = 0;  ///< behind them: seen by all, see all
    uint32_t block = 64;       ///< tokens; a multiple of the kernel's tiles (16, 32 or 64)
    float keep = 0.2f;         ///< least share of the grid's blocks that a block of queries sees
    float mass = 0.3f;         ///< and least share of its pooled attention, below 1
    bool rectify = true;       ///< else what is left out is left out
    /// Receives (batch, heads, blocks) i32: blocks of the grid that each block of queries sees.
    Tensor* kept = nullptr;
};

/// Attention to blocks selected on the device, and the rest made up for (Rectified SpaAttn,
/// github.com/BienLuky/Rectified-SpaAttn). With q̄, k̄, v̄ the means of blocks (compact_blocks() of
/// patterns/compact.h), n tokens of a block and t tokens of text, the row of a block of queries is
///   p_b = n_b exp(scale · q̄·k̄_b) / Z,  Z = Σ_b n_b exp(scale · q̄·k̄_b) + Σ_t exp(scale · q̄·k_t);
/// seen are the blocks that touch it, text, and those of the largest p until there are `keep` of
/// them with more than `mass`, equal ones together. A block that is left out is made up for where
/// |q̄·k̄_b| > mean|q − q̄|·k̄_b + q̄·mean|k − k̄_b| (absolute values of both products), and
///   o = (1 − Σ p_b of those) · attention to what is seen + Σ p_b v̄_b of those.
/// Text sees everything. Shapes, layouts and types as attention(); the same number of queries and
/// keys. Of the options those that change logits, extra keys and perturb are an Error. The same
/// bits every time.
Tensor rectified_attention(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                           const RectifiedOptions& rectified, const AttentionOptions& options = {});

}  // namespace fovea
