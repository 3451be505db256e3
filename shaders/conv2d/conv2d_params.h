// Push constants of conv2d; C++ and GLSL.
#ifdef __cplusplus
#pragma once
#include <cstdint>
namespace fovea {
using uint = uint32_t;
#endif

struct Conv2dParams {
    uint m, n, k;        // output pixels of the batch, output channels, input channels
    uint height, width;  // input
    uint rows, columns;  // output
    uint stride, kernel;
};

#ifdef __cplusplus
static_assert(sizeof(Conv2dParams) == 36);
}  // namespace fovea
#endif
