#version 460
// y[i] = x[Σ coordinate_k(i) · strides_k]: permutations, and repetitions where a stride is 0. Every
// invocation writes RUN elements of the last axis, so that the divisions are shared.
#extension GL_GOOGLE_include_directive : require
#ifdef BITS_16
#extension GL_EXT_shader_16bit_storage : require
#define Element uint16_t
#else
#define Element uint
#endif
#include "common/index.glsl"
#include "params.h"

layout(constant_id = 1) const uint RUN = 1;

layout(set = 0, binding = 0) writeonly buffer Y { Element y[]; };
layout(set = 0, binding = 1) readonly buffer X { Element x[]; };
layout(push_constant) uniform Push { StridedParams p; };

void main() {
    const uint run = linear_invocation();
    if (run >= p.runs) return;

    const uint runs_of_last = p.shape[5] / RUN;
    uint rest = run / runs_of_last;
    uint from = (run - rest * runs_of_last) * RUN * p.strides[5];
    for (int axis = 4; axis >= 0 && rest != 0; --axis) {
        const uint outer = rest / p.shape[axis];
        from += (rest - outer * p.shape[axis]) * p.strides[axis];
        rest = outer;
    }
    for (uint i = 0; i < RUN; ++i) y[run * RUN + i] = x[from + i * p.strides[5]];
}
