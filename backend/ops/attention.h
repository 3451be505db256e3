#pragma once

#include <string>
#include <vector>

#include "backend/patterns/dense.h"
#include "backend/patterns/neighborhood.h"
#include "backend/patterns/pattern.h"
#include "backend/tensor.h"

namespace fovea {

/// How attention runs on a device: plain registers, VK_KHR_cooperative_matrix,
/// VK_NV_cooperative_matrix2. FOVEA_ATTENTION_PATH forces one by name where the options say
/// automatic.
enum class AttentionPath { automatic, scalar, khr, nv2 };

const char* name_of(AttentionPath path);

struct AttentionOptions {
    float scale = 0;          ///< 0: head_dim^-1/2
    Tensor k_extra, v_extra;  ///< (batch, kv_heads, n, head_dim): keys every query sees
    Tensor* lse = nullptr;    ///< receives (batch, heads, q_len) f32: ln Σ exp(scale · q·k)
    AttentionPath path = AttentionPath::automatic;  ///< an ineligible choice is an Error
};

/// o = softmax(scale · q·kᵀ) v over the keys that the pattern keeps, in fp32 arithmetic. A query
/// without any key gives 0, lse −∞.
///   q                 (batch, heads, q_len, head_dim), f32 or f16; head_dim a multiple of 8 ≤ 256
///   k, v              (batch, kv_heads, kv_len, head_dim); query head h uses key head
///                     h / (heads / kv_heads)
///   o                 like q
/// A pattern with a grid needs q_len = kv_len = its tokens; dense() has none.
Tensor attention(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                 const Pattern& pattern, const AttentionOptions& options = {});

struct PathSupport {
    AttentionPath path;
    vk::Support support;
};

/// Every path, fastest first, and whether this device and build have it.
std::vector<PathSupport> attention_paths(const vk::DeviceInfo& device);

}  // namespace fovea
