// Push constants of the attention kernels: plain C subset, included by C++ and GLSL.

#ifndef FOVEA_ATTENTION_PARAMS_H
#define FOVEA_ATTENTION_PARAMS_H

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
    float scale;     // scale · log2(e): the softmax is taken to base 2
    uint key_tiles;  // tiles of keys; those with higher numbers hold extra keys
    uint write_lse;  // 0 or 1
    // The block list: per query tile (first, count) at 0, then the blocks (key tile, mask), then
    // the masks, BR rows of (BC + 31) / 32 words each. Offsets in words.
    uint blocks_at;
    uint masks_at;
};

#ifdef __cplusplus
#undef uint
static_assert(sizeof(AttentionParams) <= 128);
}  // namespace fovea::shared
#endif

#endif
