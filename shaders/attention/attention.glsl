// Attention with online softmax over a block list: what is common to all device paths. One
// workgroup owns BR query slots of one head and walks its blocks of BC key slots; the tile file of
// the path supplies the verbs begin, scores, modify_scores, mask_scores, softmax_step, accumulate
// and finish. Knows blocks, not patterns. No memory of size tokens², no atomics: the result is the
// same every time.
//
// Before it includes this file a path defines BR, Vector (how it loads rows, a power of two of
// elements). Dispatch: (query tiles, heads, batch).

#include "attention_params.h"

layout(constant_id = 1) const uint HEAD_DIM = 64;
layout(constant_id = 2) const uint V_DIM = 64;
layout(constant_id = 3) const uint BC = 16;  // keys a block
layout(constant_id = 4) const uint FLAGS = FLAG_VALUES;

const bool EXTRA = (FLAGS & FLAG_EXTRA) != 0;
const bool ORDERED = (FLAGS & FLAG_ORDERED) != 0;
const bool PERTURB = (FLAGS & FLAG_PERTURB) != 0;
const bool VALUES = (FLAGS & FLAG_VALUES) != 0;

layout(push_constant) uniform Push {
    AttentionParams params;
};

layout(set = 0, binding = 0) readonly buffer Q { Vector q_data[]; };
layout(set = 0, binding = 1) readonly buffer K { Vector k_data[]; };
layout(set = 0, binding = 2) readonly buffer V { Vector v_data[]; };
layout(set = 0, binding = 3) readonly buffer KExtra { Vector k_extra_data[]; };
layout(set = 0, binding = 4) readonly buffer VExtra { Vector v_extra_data[]; };
layout(set = 0, binding = 5) readonly buffer List { uint list[]; };
layout(set = 0, binding = 6) writeonly buffer O { Vector o_data[]; };
layout(set = 0, binding = 7) writeonly buffer Lse { float lse_data[]; };
layout(set = 0, binding = 8) readonly buffer Perturb { float perturb_data[]; };

const uint FULL_BLOCK = 0xffffffff;
const uint NO_TOKEN = 0xffffffff;
const float LN2 = 0.6931471805599453;
// Stands for −∞ in scores: finite, because −∞ − −∞ is NaN and compilers may assume there is none.
const float MASKED = -3.402823466e38;
#define MINUS_INFINITY uintBitsToFloat(0xff800000)
#define NOT_A_NUMBER uintBitsToFloat(0x7fc00000)

uint list_at;      // header of this head's list
uint block_begin;  // of this workgroup's blocks
uint block_end;

uint query_head() {
    return gl_WorkGroupID.z * params.n_heads + gl_WorkGroupID.y;
}

uint key_head() {
    return gl_WorkGroupID.z * params.n_kv_heads +
           gl_WorkGroupID.y / (params.n_heads / params.n_kv_heads);
}

uint query_token(uint slot) {
    if (ORDERED) return list[list[list_at + LIST_Q_ORDER] + slot];
    return slot < params.q_len ? slot : NO_TOKEN;
}

// A block of extra keys has its own numbers.
uint key_token(uint slot, bool is_extra) {
    if (ORDERED && !is_extra) return list[list[list_at + LIST_K_ORDER] + slot];
    return slot < (is_extra ? params.extra_len : params.kv_len) ? slot : NO_TOKEN;
}

uint block_key_tile(uint block) {
    return list[list[list_at + LIST_BLOCKS] + 2 * block];
}

uint block_mask(uint block) {
    return list[list[list_at + LIST_BLOCKS] + 2 * block + 1];
}

bool is_extra_tile(uint key_tile) {
    return EXTRA && key_tile >= list[list_at + LIST_KEY_TILES];
}

// First slot of a tile, among the extra keys for one of those.
uint first_slot(uint key_tile) {
    return (is_extra_tile(key_tile) ? key_tile - list[list_at + LIST_KEY_TILES] : key_tile) * BC;
}

// Keys 32 · word … of a row of a mask, a bit each.
uint mask_word(uint mask, uint row, uint word) {
    const uint words = (BC + 31) / 32;
    return list[list[list_at + LIST_MASKS] + (mask * BR + row) * words + word];
}

#include "modifiers.glsl"

void begin();
void scores(uint block);
void modify_scores(uint block);
void mask_scores(uint block);
void softmax_step(uint block);
void accumulate(uint block);
void finish();

void main() {
    list_at = params.list_words * gl_WorkGroupID.y;
    const uint row = list[list_at + LIST_ROWS] + 2 * gl_WorkGroupID.x;
    block_begin = list[row];
    block_end = block_begin + list[row + 1];
    // A head that is wholly perturbed has o = v, and no use for scores.
    if (PERTURB && params.write_lse == 0 && perturb_data[gl_WorkGroupID.y] == 1)
        block_end = block_begin;
    begin();
    for (uint block = block_begin; block < block_end; ++block) {
        scores(block);
        if (MODIFIED) modify_scores(block);
        if (block_mask(block) != FULL_BLOCK) mask_scores(block);
        softmax_step(block);
        if (VALUES) accumulate(block);
    }
    finish();
}
