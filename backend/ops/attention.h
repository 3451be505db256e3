#pragma once

#include <string>
#include <vector>

#include "backend/ops/head_layout.h"
#include "backend/patterns/dense.h"
#include "backend/patterns/neighborhood.h"
#include "backend/patterns/pattern.h"
#include "backend/tensor.h"

namespace fovea {

/// How attention runs on a device: plain registers, VK_KHR_cooperative_matrix,
/// VK_NV_cooperative_matrix2. FOVEA_PATH forces one by name where the options say automatic.
enum class AttentionPath { automatic, scalar, khr, nv2 };

const char* name_of(AttentionPath path);

/// Throws Error that lists the names.
AttentionPath parse_path(const std::string& name);

/// `option`, or where that is automatic the path of FOVEA_PATH.
AttentionPath wanted_path(AttentionPath option);

/// What q·k is computed from. int8: symmetric int8 of q and k with one scale a block of 16 or more
/// tokens, k less its mean over tokens (SageAttention, https://arxiv.org/abs/2410.02367); softmax
/// and values as ever. For tensors of f16 on devices with int8 matrices, whatever else is asked
/// for; o of random normal inputs is 1.2 % off (relative L2).
enum class ScorePrecision { stored, int8 };

const char* name_of(ScorePrecision scores);

/// Throws Error that lists the names.
ScorePrecision parse_scores(const std::string& name);

/// What is absent costs nothing. Logits become
///   scale · q·k · multipliers[label of query, label of key] + bias + relative bias + ln weight
/// for keys of k; extra keys keep scale · q·k.
struct AttentionOptions {
    float scale = 0;          ///< 0: head_dim^-1/2
    Tensor k_extra, v_extra;  ///< (batch, kv_heads, n, head_dim or v_dim): keys every query sees
    Tensor* lse = nullptr;    ///< receives (batch, heads, q_len) f32: ln Σ exp(logit)
    /// (heads) f32: strength u of perturbed attention, o = (1 − u)·attention + u·v (PAG for u = 1,
    /// SoftPAG; needs q_len = kv_len). Heads with u = 1 compute no scores unless the LSE is
    /// wanted; the LSE stays that of the unperturbed scores.
    Tensor perturb;
    Tensor bias;  ///< (1 or heads, q_len, kv_len) f32, added
    /// (1 or heads, 2·rows − 1, 2·columns − 1) f32, added: entry (Δrow + rows − 1, Δcolumn +
    /// columns − 1), query minus key on a grid of q_len = kv_len = rows · columns tokens.
    Tensor relative_bias;
    Tensor key_weights;  ///< (1 or heads, kv_len) f32 ≥ 0: each multiplies its key's exp(logit)
    /// (q_len) and (kv_len) i32: region labels from 0, rows and columns of multipliers, f32. Labels
    /// beyond the table count as its last.
    Tensor q_labels, k_labels, multipliers;
    AttentionPath path = AttentionPath::automatic;   ///< an ineligible choice is an Error
    ScorePrecision scores = ScorePrecision::stored;  ///< likewise
    /// Of q, k, v, k_extra, v_extra and o alike; shapes above and below are heads first.
    HeadLayout layout = HeadLayout::heads_first;
    /// Each query's keys in so many parts, side by side, whose results are merged; o is rounded
    /// once more. 0: one, or on a GPU that queries alone would not fill as many as do. Not with
    /// perturb nor, where tokens come first, with lse.
    uint32_t key_parts = 0;
};

/// o = softmax(logits) v over the keys that the pattern keeps; fp32 softmax and sums. A query
/// without any key gives 0, lse −∞; what a query does not see cannot reach it, not even as NaN. A
/// value that is not finite and is seen makes o not finite: its column, or the whole row and its
/// LSE.
///   q  (batch, heads, q_len, head_dim), f32 or f16; head_dim a multiple of 8 ≤ 256
///   k  (batch, kv_heads, kv_len, head_dim); query head h uses key head h / (heads / kv_heads)
///   v  (batch, kv_heads, kv_len, v_dim); v_dim a multiple of 8 ≤ 256
///   o  (batch, heads, q_len, v_dim), of q's type
/// With HeadLayout::tokens_first axes 1 and 2 of these change places, the inputs may be columns of
/// wider tensors, (batch, tokens, heads, head_dim) each, and o is dense.
/// A pattern with a grid needs q_len = kv_len = its tokens; dense() has none.
Tensor attention(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                 const Pattern& pattern, const AttentionOptions& options = {});

/// Only ln Σ exp(logit), (batch, heads, q_len) f32. Options as above; lse and perturb mean nothing.
Tensor attention_lse(vk::Stream& stream, const Tensor& q, const Tensor& k, const Pattern& pattern,
                     const AttentionOptions& options = {});

struct PathSupport {
    AttentionPath path;
    vk::Support support;
};

/// Every path, fastest first, and whether this device and build have it for tensors of a type.
std::vector<PathSupport> attention_paths(const vk::DeviceInfo& device, DType dtype = DType::f16,
                                         ScorePrecision scores = ScorePrecision::stored);

/// The path that attention() takes for tensors of a type: the wanted one, that of FOVEA_PATH, or
/// the fastest that applies; throws Error with the reason where a forced one does not.
AttentionPath choose_path(const vk::DeviceInfo& device, DType dtype,
                          AttentionPath wanted = AttentionPath::automatic,
                          ScorePrecision scores = ScorePrecision::stored);

}  // namespace fovea
