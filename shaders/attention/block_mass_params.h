// Push constants of block_mass.comp, one definition for C++ and GLSL.

#ifndef FOVEA_BLOCK_MASS_PARAMS_H
#define FOVEA_BLOCK_MASS_PARAMS_H

#ifdef __cplusplus
#include <cstdint>
namespace fovea::shared {
#define uint uint32_t
#endif

struct BlockMassParams {
    uint q_len;
    uint kv_len;
    uint n_heads;
    uint n_kv_heads;
    float scale;  // scale · log2(e): weights are taken to base 2
    uint block_q;
    uint block_k;
    uint key_blocks;  // columns of the map
    uint list_words;  // see list_params.h
};

#ifdef __cplusplus
#undef uint
static_assert(sizeof(BlockMassParams) <= 128);
}  // namespace fovea::shared
#endif

#endif
