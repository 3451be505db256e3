#pragma once

#include "backend/ops/device_list.h"
#include "backend/tensor.h"

namespace fovea {

/// What attention with int8 scores reads in the place of q and k (shaders/attention/quantize.comp):
/// slots in the order of a list, padded with 0 to whole tiles and to `columns`.
struct QuantizedScores {
    Tensor q;        // u8, two's complement (batch, heads, query tiles · tile.q, columns)
    Tensor q_slots;  // f32 (batch, heads, query tiles · tile.q, 2): scale · log2(e) · q·mean, and
                     // the scale of the slot's block times |scale| · log2(e)
    Tensor k;  // u8 (batch, copies, k_tiles · tile.k, columns), extra keys behind the others
    Tensor k_scales;  // f32 (batch, copies, k_tiles): below 0 where a value was not finite
    uint32_t k_tiles;
};

struct QuantizeOptions {
    TileShape tile;    ///< of the list; a tile of keys has one scale
    uint32_t q_rows;   ///< queries that share a scale; divides tile.q
    uint32_t columns;  ///< head_dim rounded up for the matrices, a multiple of 16
    float scale;       ///< scale · log2(e) of the softmax; its sign goes into q
    bool shifts;       ///< whether q·mean is wanted: else that entry is 0, or NaN as below
    Tensor k_extra;    ///< (batch, kv_heads, n, head_dim) or absent: loses the same mean
};

/// Symmetric int8 of q and k, with one scale a block. k loses its mean over tokens, by head and
/// channel, first: all scores of a query change by the same q·mean (SageAttention,
/// https://arxiv.org/abs/2410.02367). Copies of k: kv_heads, or heads where each has its own list.
///   q (batch, heads, q_len, head_dim), k (batch, kv_heads, kv_len, head_dim): f16, head_dim a
///   multiple of 8 ≤ 256
/// What is not finite is −128 in k, eight values at a time, and not in the mean; in q it is 0 and
/// the row's q·mean NaN.
QuantizedScores quantize_scores(vk::Stream& stream, const Tensor& q, const Tensor& k,
                                const DeviceList& list, const QuantizeOptions& options);

}  // namespace fovea
