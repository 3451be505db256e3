// Push constants and flags of the attention kernels: plain C subset, included by C++ and GLSL.

#ifndef FOVEA_ATTENTION_PARAMS_H
#define FOVEA_ATTENTION_PARAMS_H

#include "list_params.h"

#ifdef __cplusplus
#include <cstdint>
namespace fovea::shared {
#define uint uint32_t
#endif

struct AttentionParams {
    uint q_len;
    uint kv_len;
    uint extra_len;
    uint n_heads;
    uint n_kv_heads;
    float scale;      // scale · log2(e): the softmax is taken to base 2
    uint list_words;  // see list_params.h
    uint write_lse;   // 0 or 1
    // Of logit modifiers, see modifiers.glsl. Strides in elements, 0 where heads share a table.
    uint bias_head_stride;
    uint relative_head_stride;
    uint grid_rows;  // of the grid that relative biases refer to
    uint grid_columns;
    uint weights_head_stride;
    uint q_labels;  // rows and columns of the table of multipliers
    uint k_labels;
    uint k_tiles;  // int8 scores: tiles of keys a head, with those of extra keys
    // Where tokens come first: vectors of the path from a token's heads to the next token's.
    uint q_pitch;
    uint k_pitch;
    uint v_pitch;
    uint k_extra_pitch;
    uint v_extra_pitch;
    // Dispatch z runs over samples, then over parts of each row's blocks, whose o and lse lie
    // part_rows rows apart.
    uint batch;
    uint parts;
    uint part_rows;
    uint list_sample_words;  // from a sample's list headers to the next sample's; 0: shared
};

// Specialisation: what a call does not use costs nothing.
const uint FLAG_EXTRA = 1;    // extra keys
const uint FLAG_ORDERED = 2;  // slots are not tokens
const uint FLAG_PERTURB = 4;
const uint FLAG_VALUES = 8;  // absent: only the LSE is wanted
const uint FLAG_BIAS = 16;
const uint FLAG_RELATIVE_BIAS = 32;
const uint FLAG_KEY_WEIGHTS = 64;
const uint FLAG_MULTIPLIERS = 128;
const uint FLAG_TOKENS_FIRST = 256;  // of q, k, v and o: axes (batch, tokens, heads, head_dim)
const uint FLAG_TURNS = 512;  // workgroups do not take heads and query tiles in order of number

#ifdef __cplusplus
#undef uint
static_assert(sizeof(AttentionParams) <= 128);
}  // namespace fovea::shared
#endif

#endif
