// A plan in device memory, see device_list.h: plain C subset, included by C++ and GLSL.

#ifndef FOVEA_LIST_PARAMS_H
#define FOVEA_LIST_PARAMS_H

#ifdef __cplusplus
#include <cstdint>
namespace fovea::shared {
#define uint uint32_t
#endif

// A head's header, `list_words` after that of the head before (0: one list for all heads): offsets
// in words of the buffer, and a count.
const uint LIST_ROWS = 0;     // per query tile (first, count) of its blocks
const uint LIST_BLOCKS = 1;   // (key tile, mask)
const uint LIST_MASKS = 2;    // queries of a tile, (keys of a tile + 31) / 32 words each
const uint LIST_Q_ORDER = 3;  // token of each slot, where there is an order
const uint LIST_K_ORDER = 4;
const uint LIST_KEY_TILES = 5;  // tiles with higher numbers hold extra keys
// With FLAG_TURNS:
const uint LIST_TURNS = 6;  // the query tile of each workgroup of a head
const uint LIST_HEAD_TURN =
    7;  // of header h: the head that the h-th workgroups take, where heads have headers
const uint LIST_HEADER = 8;  // words

#ifdef __cplusplus
#undef uint
}  // namespace fovea::shared
#endif

#endif
