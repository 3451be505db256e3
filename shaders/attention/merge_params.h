// Push constants of merge and range_mass, one definition for C++ and GLSL.

#ifndef FOVEA_MERGE_PARAMS_H
#define FOVEA_MERGE_PARAMS_H

#ifdef __cplusplus
#include <cstdint>
namespace fovea::shared {
#define uint uint32_t
#endif

struct MergeParams {
    uint count;  // quarters of rows: rows · d / 4
    uint d4;     // d / 4
    uint parts;  // of this dispatch, at most four
};

struct RangeMassParams {
    uint count;
};

#ifdef __cplusplus
#undef uint
static_assert(sizeof(MergeParams) <= 128);
}  // namespace fovea::shared
#endif

#endif
