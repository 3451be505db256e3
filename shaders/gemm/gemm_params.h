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

#ifdef __cplusplus
static_assert(sizeof(GemmParams) == 16);
}  // namespace fovea
#endif
