// The window of kernel × kernel tokens around one, slid back inside at the borders.

#ifndef FOVEA_MIX_WINDOW_GLSL
#define FOVEA_MIX_WINDOW_GLSL

uint window_start(uint position, uint kernel, uint extent) {
    const uint before = kernel / 2;
    return min(position - min(position, before), extent - kernel);
}

#endif
