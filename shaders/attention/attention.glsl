// Attention with online softmax over a block list: what is common to all device paths. One
// workgroup owns BR query slots of one head and walks its blocks of BC key slots; the tile file of
// the path supplies the verbs begin, scores, modify_scores, mask_scores, softmax_step, accumulate
// and finish. Knows blocks, not patterns. No memory of size tokens², no atomics: the result is the
// same every time. Where queries are few, each row's blocks are walked in parts, whose results another
// kernel merges.
//
// Before it includes this file a path defines BR, Vector (how it loads rows, a power of two of
// elements). Dispatch: (query tiles, heads, batch · parts).

#include "attention_params.h"

layout(constant_id = 1) const uint HEAD_DIM = 64;
layout(constant_id = 2) const uint V_DIM = 64;
layout(constant_id = 3) const uint BC = 16;  // keys a block
layout(constant_id = 4) const uint FLAGS = FLAG_VALUES;

const bool EXTRA = (FLAGS & FLAG_EXTRA) != 0;
const bool ORDERED = (FLAGS & FLAG_ORDERED) != 0;
const bool TURNS = (FLAGS & FLAG_TURNS) != 0;
const bool PERTURB = (FLAGS & FLAG_PERTURB) != 0;
const bool VALUES = (FLAGS & FLAG_VALUES) != 0;
const bool TOKENS_FIRST = (FLAGS & FLAG_TOKENS_FIRST) != 0;

layout(push_constant) uniform Push {
    AttentionParams params;
};

layout(set = 0, binding = 0) readonly buffer Q { Vector q_data[]; };
layout(set = 0, binding = 1) readonly buffer K { Vector k_data[]; };
layout(set = 0, binding = 2) readonly buffer V { Vector v_data[]; };
#ifndef INT8_SCORES
layout(set = 0, binding = 3) readonly buffer KExtra { Vector k_extra_data[]; };
#endif
layout(set = 0, binding = 4) readonly buffer VExtra { Vector v_extra_data[]; };
layout(set = 0, binding = 5) readonly buffer List { uint list[]; };
layout(set = 0, binding = 6) writeonly buffer O { Vector o_data[]; };
layout(set = 0, binding = 7) writeonly buffer Lse { float lse_data[]; };
layout(set = 0, binding = 8) readonly buffer Perturb { float perturb_data[]; };

const uint FULL_BLOCK = 0xffffffff;
const uint NO_TOKEN = 0xffffffff;
const float LN2 = 0.6931471805599453;
// Where a running maximum starts: finite, so that a masked score, −∞, less any maximum is −∞ and its
// weight 0, in rows that have not seen a key too.
const float LEAST = -3.402823466e38;
#define MINUS_INFINITY uintBitsToFloat(0xff800000)
#define NOT_A_NUMBER uintBitsToFloat(0x7fc00000)

// With TURNS. Variables in the place of gl_WorkGroupID cost int8 scores 5 % on an H200.
uint turned_tile;
uint turned_head;

uint own_tile() {  // of queries
    return TURNS ? turned_tile : gl_WorkGroupID.x;
}

uint own_head() {
    return TURNS ? turned_head : gl_WorkGroupID.y;
}

uint blocks_at;  // of this head's list, offsets in words
uint masks_at;
uint q_order_at;
uint k_order_at;
uint key_tiles;
uint last_block;   // of this row of the list
uvec2 block;       // (key tile, mask) of the block in work
uvec2 next_block;  // and of the one after it; the last one again behind the end

uint own_sample() {
    return gl_WorkGroupID.z % params.batch;
}

uint query_head() {
    return own_sample() * params.n_heads + own_head();
}

uint key_head() {
    return own_sample() * params.n_kv_heads + own_head() / (params.n_heads / params.n_kv_heads);
}

// Where a token's row of a head starts, in vectors; heads are counted over all samples, of which
// each has `heads`.
uint row_start(uint head, uint heads, uint token, uint len, uint vectors, uint pitch) {
    if (!TOKENS_FIRST) return (head * len + token) * vectors;
    return (own_sample() * len + token) * pitch + (head - own_sample() * heads) * vectors;
}

uint query_row(uint token, uint vectors, uint pitch) {
    return row_start(query_head(), params.n_heads, token, params.q_len, vectors, pitch);
}

// Of o in vectors, of lse with vectors = 1. Parts of lse have o's order of axes, for merge.
uint output_row(uint token, uint vectors, bool tokens_first) {
    const uint row = tokens_first
        ? (own_sample() * params.q_len + token) * params.n_heads + own_head()
        : query_head() * params.q_len + token;
    return (gl_WorkGroupID.z / params.batch * params.part_rows + row) * vectors;
}

uint lse_at(uint token) {
    return output_row(token, 1, TOKENS_FIRST && params.parts > 1);
}

uint query_token(uint slot) {
    if (ORDERED) return list[q_order_at + slot];
    return slot < params.q_len ? slot : NO_TOKEN;
}

// The token of a slot, or some number above all tokens. A block of extra keys has its own numbers.
uint key_slot(uint slot, bool is_extra) {
    return ORDERED && !is_extra ? list[k_order_at + slot] : slot;
}

uint key_token(uint slot, bool is_extra) {
    const uint token = key_slot(slot, is_extra);
    return token < (is_extra ? params.extra_len : params.kv_len) ? token : NO_TOKEN;
}

uvec2 block_at(uint number) {
    const uint at = blocks_at + 2 * min(number, last_block);
    return uvec2(list[at], list[at + 1]);
}

bool is_extra_tile(uint key_tile) {
    return EXTRA && key_tile >= key_tiles;
}

bool is_partial() {
    return block.y != FULL_BLOCK;
}

// First slot of a tile, among the extra keys for one of those.
uint first_slot(uint key_tile) {
    return (is_extra_tile(key_tile) ? key_tile - key_tiles : key_tile) * BC;
}

// Keys 32 · word … of a row of the block's mask, a bit each.
uint mask_word(uint row, uint word) {
    const uint words = (BC + 31) / 32;
    return list[masks_at + (block.y * BR + row) * words + word];
}

#include "modifiers.glsl"

void begin(uint blocks);
void scores(bool partial);
void modify_scores();
void mask_scores();
void softmax_step();
void accumulate();
void finish();

// Two blocks ahead: the next one's number is at hand when its keys are to be fetched.
#define STEP(partial, number_after_next)                    \
    {                                                       \
        const uvec2 after_next = block_at(number_after_next); \
        scores(partial);                                    \
        if (MODIFIED) modify_scores();                      \
        if (partial) mask_scores();                         \
        softmax_step();                                     \
        if (VALUES) accumulate();                           \
        block = next_block;                                 \
        next_block = after_next;                            \
    }

void walk(uint first, uint count) {
    last_block = first + count - 1;
    block = block_at(first);
    next_block = block_at(first + 1);
    begin(count);
    uint i = 0;
#ifdef FULL_BLOCKS_APART
    // Full blocks come first (device_list.cpp), and their loop has no trace of masks: 5 to 8 % on
    // an H200. Twice in a row, sums need not return to where the loop began: 1 to 4 %.
    if (UNROLL == 2)
        for (; i + 1 < count && !is_partial() && next_block.y == FULL_BLOCK; i += 2) {
            STEP(false, first + i + 2)
            STEP(false, first + i + 3)
        }
    for (; i < count && !is_partial(); ++i) STEP(false, first + i + 2)
#endif
    for (; i < count; ++i) STEP(is_partial(), first + i + 2)
}

void main() {
    const uint lists = params.list_sample_words * own_sample();
    if (TURNS) {
        turned_head = gl_WorkGroupID.y;
        if (params.list_words != 0)
            turned_head = list[lists + params.list_words * turned_head + LIST_HEAD_TURN];
    }
    const uint header = lists + params.list_words * own_head();
    if (TURNS) turned_tile = list[list[header + LIST_TURNS] + gl_WorkGroupID.x];
    blocks_at = list[header + LIST_BLOCKS];
    masks_at = list[header + LIST_MASKS];
    q_order_at = list[header + LIST_Q_ORDER];
    k_order_at = list[header + LIST_K_ORDER];
    key_tiles = list[header + LIST_KEY_TILES];
    const uint row = list[header + LIST_ROWS] + 2 * own_tile();
    const uint part = gl_WorkGroupID.z / params.batch, blocks = list[row + 1];
    const uint before = blocks * part / params.parts;
    const uint first = list[row] + before;
    uint count = blocks * (part + 1) / params.parts - before;
    // A head that is wholly perturbed has o = v, and no use for scores.
    if (PERTURB && params.write_lse == 0 && perturb_data[own_head()] == 1) count = 0;
    // Apart, so that the compiler sees that the loops of walk are the same for a whole workgroup.
    if (count == 0)
        begin(0);
    else
        walk(first, count);
    finish();
}
