#version 460
// Fused multiply-adds on registers alone: the most that paths without matrix units can reach. The
// chains are independent, and c ← c/2 + b ends at 2b, which the host checks.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common/index.glsl"

const uint CHAINS = 8, STEPS = 16;  // more chains would not fit the registers of a CPU

layout(set = 0, binding = 0) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push {
    uint rounds;
    float factor, addend;
};

void main() {
    float c[CHAINS];
    [[unroll]] for (uint i = 0; i < CHAINS; ++i) c[i] = float(gl_LocalInvocationID.x + i);
    for (uint round = 0; round < rounds; ++round)
        [[unroll]] for (uint step = 0; step < STEPS; ++step)
            [[unroll]] for (uint i = 0; i < CHAINS; ++i) c[i] = fma(c[i], factor, addend);
    float sum = 0;
    [[unroll]] for (uint i = 0; i < CHAINS; ++i) sum += c[i];
    y[linear_invocation()] = sum;
}
