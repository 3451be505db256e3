// Push constants of pool_blocks and select_blocks, one definition for C++ and GLSL.

#ifndef FOVEA_SELECT_PARAMS_H
#define FOVEA_SELECT_PARAMS_H

#ifdef __cplusplus
#include <cstdint>
namespace fovea::shared {
#define uint uint32_t
#endif

struct PoolParams {
    uint count;  // means: quarters of rows
    uint d4;     // head_dim / 4
    uint heads;
    uint entries;  // means a head: of blocks, then of single tokens
    uint blocks;
    uint block;         // slots
    uint sample_pitch;  // of x, in quarters
    uint head_pitch;
    uint token_pitch;
};

struct SelectParams {
    uint grid_blocks;
    uint text_blocks;
    uint grid_tokens;
    uint text_tokens;
    uint block;  // slots
    uint heads;
    uint kv_heads;
    uint d4;       // head_dim / 4
    uint dv4;      // v_dim / 4
    uint q_tiles;  // of a head; a block has q_tiles / blocks of them
    uint k_tiles;
    uint rows_at;  // of the first head's rows in the list, and of its blocks
    uint blocks_at;
    uint least;  // blocks of the grid that a row keeps
    float mass;  // and the share of attention that is to be exceeded
    float scale;
    uint rectify;  // 0 or 1
};

const uint TILE_EMPTY = 0xfffffffe;  // for a tile's mask: it holds no token

#ifdef __cplusplus
#undef uint
static_assert(sizeof(SelectParams) <= 128);
}  // namespace fovea::shared
#endif

#endif
