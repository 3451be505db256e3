// Attention with online softmax over a block list: what is common to all device paths. One
// workgroup owns BR queries of one head and walks its blocks of BC keys; the tile file of the path
// supplies the verbs begin, scores, mask_scores, softmax_step, accumulate and finish. Knows blocks,
// not patterns. No memory of size tokens², no atomics: the result is the same every time.
//
// Dispatch: (query tiles, heads, batch).

#include "attention_params.h"

layout(push_constant) uniform Push {
    AttentionParams params;
};

layout(set = 0, binding = 0) readonly buffer Q { Stored4 q_data[]; };
layout(set = 0, binding = 1) readonly buffer K { Stored4 k_data[]; };
layout(set = 0, binding = 2) readonly buffer V { Stored4 v_data[]; };
layout(set = 0, binding = 3) readonly buffer KExtra { Stored4 k_extra_data[]; };
layout(set = 0, binding = 4) readonly buffer VExtra { Stored4 v_extra_data[]; };
layout(set = 0, binding = 5) readonly buffer List { uint list[]; };
layout(set = 0, binding = 6) writeonly buffer O { Stored4 o_data[]; };
layout(set = 0, binding = 7) writeonly buffer Lse { float lse_data[]; };

const uint FULL_BLOCK = 0xffffffff;
const float LN2 = 0.6931471805599453;
// Stands for −∞ in scores: finite, because −∞ − −∞ is NaN and compilers may assume there is none.
const float MASKED = -3.402823466e38;

uint query_head() {
    return gl_WorkGroupID.z * params.n_heads + gl_WorkGroupID.y;
}

uint key_head() {
    return gl_WorkGroupID.z * params.n_kv_heads +
           gl_WorkGroupID.y / (params.n_heads / params.n_kv_heads);
}

// Keys 32 · word … of a row of a mask, a bit each.
uint mask_word(uint mask, uint row, uint word) {
    const uint words = (BC + 31) / 32;
    return list[params.masks_at + (mask * BR + row) * words + word];
}

void begin();
void scores(uint key_tile);
void mask_scores(uint mask);
void softmax_step();
void accumulate(uint key_tile);
void finish();

void main() {
    begin();
    const uint first = list[2 * gl_WorkGroupID.x], count = list[2 * gl_WorkGroupID.x + 1];
    for (uint i = first; i < first + count; ++i) {
        const uint key_tile = list[params.blocks_at + 2 * i];
        const uint mask = list[params.blocks_at + 2 * i + 1];
        scores(key_tile);
        if (mask != FULL_BLOCK) mask_scores(mask);
        softmax_step();
        accumulate(key_tile);
    }
    finish();
}
