// Push constants of probabilities and weighted_values, one definition for C++ and GLSL.

#ifndef FOVEA_PROBABILITIES_PARAMS_H
#define FOVEA_PROBABILITIES_PARAMS_H

#ifdef __cplusplus
#include <cstdint>
namespace fovea::shared {
#define uint uint32_t
#endif

struct ProbabilitiesParams {
    uint rows;  // batch · heads · queries
    uint queries, keys, heads, head_dim;
    uint q_pitch, k_pitch;  // elements from a token's heads to the next token's
    float scale;
};

struct WeightedValuesParams {
    uint count;  // batch · queries · heads · v_dim
    uint queries, keys, heads, v_dim;
    uint v_pitch;
};

#ifdef __cplusplus
#undef uint
}  // namespace fovea::shared
#endif

#endif
