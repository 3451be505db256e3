// Push constants of rescale.comp, one definition for C++ and GLSL.

#ifndef FOVEA_RESCALE_PARAMS_H
#define FOVEA_RESCALE_PARAMS_H

#ifdef __cplusplus
#include <cstdint>
namespace fovea::shared {
#define uint uint32_t
#endif

struct RescaleParams {
    uint count;  // invocations: quarters of rows of slots
    uint d4;
    uint heads;
    uint slots;
    uint tokens;
    uint sample_pitch;  // of x and y, in quarters
    uint head_pitch;
    uint token_pitch;
    uint block;  // slots that share a factor and an addend
    float sign;
    float shift;
};

#ifdef __cplusplus
#undef uint
static_assert(sizeof(RescaleParams) <= 128);
}  // namespace fovea::shared
#endif

#endif
