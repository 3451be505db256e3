#pragma once

#include <cstdint>

#include "backend/ops/attention.h"
#include "backend/tensor.h"

namespace fovea {

struct RoutedOptions {
    uint32_t rows = 0, columns = 0;                ///< of the grid of tokens
    uint32_t region_rows = 7, region_columns = 7;  ///< regions along each axis, which they divide
    uint32_t keep = 4;                             ///< regions that each sees; of equal scores all
    float scale = 0;         ///< of the attention; 0: (heads · head_dim)^-1/2
    Tensor* kept = nullptr;  ///< receives (batch, 1, regions) i32: how many regions each sees
};

/// Bi-level routing attention (BiFormer, github.com/rayleizhu/BiFormer): queries of a region see
/// the tokens of the `keep` regions whose mean key, over all heads together, has the largest
/// product with the region's mean query. Selected on the device, the same for all heads.
///   q, k (batch, rows · columns, heads, head_dim), v (…, v_dim), columns of wider tensors too;
///   o as of attention() with tokens first. The same bits every time.
Tensor routed_attention(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                        const RoutedOptions& options,
                        AttentionPath path = AttentionPath::automatic);

}  // namespace fovea
