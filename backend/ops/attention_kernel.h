#pragma once

#include <vector>

#include "backend/ops/attention.h"
#include "backend/ops/matrix_units.h"
#include "backend/ops/tuning.h"
#include "backend/patterns/block_list.h"
#include "backend/vk/device.h"

/// Which module with which specialisation runs an attention problem: for attention.cpp, and for
/// those that say what it will do.
namespace fovea {

struct AttentionProblem {
    uint32_t batch, heads, kv_heads, q_len, kv_len, extra_len, head_dim, v_dim;
    DType dtype;
    uint32_t flags;  ///< FLAG_… of attention_params.h
    ScorePrecision scores = ScorePrecision::stored;
};

/// Self-attention of one sample, every head with keys of its own, nothing extra.
inline AttentionProblem self_attention_problem(uint32_t heads, uint32_t tokens, uint32_t head_dim,
                                               DType dtype) {
    return {.batch = 1,
            .heads = heads,
            .kv_heads = heads,
            .q_len = tokens,
            .kv_len = tokens,
            .extra_len = 0,
            .head_dim = head_dim,
            .v_dim = head_dim,
            .dtype = dtype,
            .flags = 0};
}

/// What tuning is free to change; specialisation constants of the modules.
struct AttentionTile {
    uint32_t subgroups;   ///< a workgroup
    uint32_t keys;        ///< a block
    uint32_t row_tiles;   ///< of queries: matrices a subgroup; on scalar, rows an invocation
    uint32_t unroll = 1;  ///< nv2: full blocks in a turn of the loop, 1 or 2

    bool operator==(const AttentionTile&) const = default;
};

/// "8x64x1", or "8x64x1x2" where unroll is not 1.
std::string to_string(const AttentionTile& tile);

/// All that a call decides before it has a list, made once a call.
struct AttentionChoice {
    AttentionPath path;
    bool emulated;           ///< khr and nv2 on plain registers
    vk::MatrixShape matrix;  ///< of khr and nv2
    uint32_t score_k;        ///< int8 scores: products of matrix.m × matrix.n × score_k; else 0
    uint32_t lanes;          ///< a subgroup; on scalar, a workgroup
    AttentionTile tile;

    TileShape block() const;         ///< queries × keys
    uint32_t subgroup_rows() const;  ///< queries a subgroup; on scalar, a workgroup
};

struct AttentionKernel {
    const vk::Shader* shader;
    std::vector<uint32_t> constants;
    bool full_subgroups;
};

vk::Support supports(AttentionPath path, const vk::DeviceInfo& device, DType dtype,
                     ScorePrecision scores = ScorePrecision::stored);

/// For a pattern of this granularity, on `wanted`; automatic: on the path that attention() takes.
/// Throws Error where the path cannot run.
AttentionChoice choose_attention(const vk::DeviceInfo& device, const AttentionProblem& problem,
                                 TileShape granularity,
                                 AttentionPath wanted = AttentionPath::automatic);

/// What tuning may take in the place of the rule, with the class of problems that share the pick;
/// none on scalar, and none where FOVEA_TILE forces one.
TileCandidates attention_tiles(const vk::DeviceInfo& device, const AttentionProblem& problem,
                               TileShape granularity,
                               AttentionPath wanted = AttentionPath::automatic);

/// `places` of the choice's matrix, for nv2.
AttentionKernel attention_kernel(const AttentionChoice& choice, const vk::DeviceInfo& device,
                                 const AttentionProblem& problem, const ElementPlaces& places = {});

}  // namespace fovea
