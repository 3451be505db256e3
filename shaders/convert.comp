#version 460
// fp32 to fp16, or with -DWIDEN back.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"

#ifdef WIDEN
#define From Stored
#define To float
#else
#define From float
#define To Stored
#endif

layout(set = 0, binding = 0) writeonly buffer Y { To y[]; };
layout(set = 0, binding = 1) readonly buffer X { From x[]; };
layout(push_constant) uniform Push { uint count; };

void main() {
    const uint i = linear_invocation();
    if (i < count) y[i] = To(x[i]);
}
