#version 460
// Mean over the tokens of (batch, tokens, width): an invocation a result, summed in one order.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer Y { Stored y[]; };
layout(set = 0, binding = 1) readonly buffer X { Stored x[]; };
layout(push_constant) uniform Push { ReduceParams p; };

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint batch = i / p.width;
    uint from = batch * p.tokens * p.width + (i - batch * p.width);
    float sum = 0;
    for (uint t = 0; t < p.tokens; ++t, from += p.width) sum += load(x[from]);
    y[i] = store(sum / float(p.tokens));
}
