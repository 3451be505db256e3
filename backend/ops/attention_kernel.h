#pragma once

#include <vector>

#include "backend/ops/attention.h"
#include "backend/patterns/block_list.h"
#include "backend/vk/device.h"

/// Which module with which specialisation runs an attention problem. Only attention.cpp uses this.
namespace fovea {

struct AttentionProblem {
    uint32_t batch, heads, kv_heads, q_len, kv_len, extra_len, head_dim, v_dim;
    DType dtype;
    uint32_t flags;  ///< FLAG_… of attention_params.h
};

struct AttentionKernel {
    const vk::Shader* shader;
    std::vector<uint32_t> constants;
    TileShape tile;
    bool full_subgroups;
};

vk::Support supports(AttentionPath path, const vk::DeviceInfo& device, DType dtype);

/// The tile that the path takes for this problem; `granularity` is the pattern's.
TileShape attention_tile(AttentionPath path, const vk::DeviceInfo& device,
                         const AttentionProblem& problem, TileShape granularity);

AttentionKernel attention_kernel(AttentionPath path, const vk::DeviceInfo& device,
                                 const AttentionProblem& problem, TileShape granularity);

}  // namespace fovea
