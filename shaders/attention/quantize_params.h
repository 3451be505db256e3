// Push constants of key_sums.comp and quantize.comp: plain C subset, included by C++ and GLSL.

#ifndef FOVEA_QUANTIZE_PARAMS_H
#define FOVEA_QUANTIZE_PARAMS_H

#ifdef __cplusplus
#include <cstdint>
namespace fovea::shared {
#define uint uint32_t
#endif

struct KeySumsParams {
    uint kv_len;
    uint chunk;  // tokens that are added up together
};

struct QuantizeParams {
    uint len;        // tokens of x
    uint extra_len;  // and of x_extra
    uint kv_len;     // what the mean divides the sums by
    uint chunks;     // sums a head
    uint list_words;
    uint head_group;  // heads that share one of x
    uint mean_group;  // and one of the sums
    float scale;      // of queries: scale · log2(e)
};

#ifdef __cplusplus
#undef uint
}  // namespace fovea::shared
#endif

#endif
