// Push constants of gemm; C++ and GLSL.
#ifdef __cplusplus
#pragma once
#include <cstdint>
namespace fovea {
using uint = uint32_t;
#endif

struct GemmParams {
    uint m, n, k;
    uint gate_rows;  // rows of y that share a row of the gate
};

// Flags of ThinParams: what is there.
const uint THIN_BIAS = 1;
const uint THIN_GATE = 2;
const uint THIN_RESIDUAL = 4;

struct ThinParams {
    uint m, n, k;
    uint gate_rows;
    uint flags, activation;
};

#ifdef __cplusplus
static_assert(sizeof(GemmParams) == 16 && sizeof(ThinParams) == 24);
}  // namespace fovea
#endif
