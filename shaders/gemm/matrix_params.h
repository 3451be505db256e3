// Push constants of gemm and conv2d on matrix units; C++ and GLSL.
#ifdef __cplusplus
#pragma once
#include <cstdint>
namespace fovea {
using uint = uint32_t;
#define MATRIX_FLAG constexpr uint
#else
#define MATRIX_FLAG const uint
#endif

MATRIX_FLAG MATRIX_BIAS = 1;
MATRIX_FLAG MATRIX_GATE = 2;
MATRIX_FLAG MATRIX_RESIDUAL = 4;
MATRIX_FLAG MATRIX_RESIDUAL_INSIDE = 8;  // added before the activation, not after the gate

struct MatrixParams {
    uint m, n, k;  // of a convolution: output pixels, output channels, taps times input channels
    uint flags, activation;
    uint gate_rows;    // rows of y that share a row of the gate
    uint splits;       // parts of k, each with its own sums; 1: y itself is written
    uint split_slabs;  // slabs of k in a part
    uint band;         // rows of tiles that go through all columns before the next ones
    // Of a convolution:
    uint channels, height, width;  // input
    uint rows, columns;            // output
    uint stride, kernel;
};

#undef MATRIX_FLAG
#ifdef __cplusplus
static_assert(sizeof(MatrixParams) == 64);
}  // namespace fovea
#endif
