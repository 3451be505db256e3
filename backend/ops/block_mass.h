#pragma once

#include <cstdint>

#include "backend/ops/attention.h"
#include "backend/tensor.h"

namespace fovea {

struct BlockMassOptions {
    uint32_t block_q = 64, block_k = 64;  ///< tokens, at least 1; the last blocks may be shorter
    float scale = 0;                      ///< 0: head_dim^-1/2
    AttentionPath path = AttentionPath::automatic;  ///< of the pass that finds the LSEs
    Tensor lse;  ///< (batch, heads, q_len) f32: theirs, where attention over the pattern was done
};

/// The pooled attention map of every head: element (b, h, i, j) is the mean over the queries of
/// block i of Σ over the keys of block j of softmax(scale · q·k), over the pairs that the pattern
/// keeps. Rows sum to 1; a query that sees no key adds nothing to its row.
///   q       (batch, heads, q_len, head_dim), f32 or f16; head_dim a multiple of 8 up to 256
///   k       (batch, kv_heads, kv_len, head_dim)
///   result  (batch, heads, query blocks, key blocks) f32
/// Blocks are stretches of the sequence, or of the order that the pattern gives it: with a
/// reordered pattern, of each head's own. Memory is that of the result and of an LSE a query; time
/// about that of attention plus half as much. The same bits every time.
Tensor block_mass(vk::Stream& stream, const Tensor& q, const Tensor& k, const Pattern& pattern,
                  const BlockMassOptions& options = {});

}  // namespace fovea
