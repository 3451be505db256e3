#version 460
// o = map · v of every head, for few keys: an invocation has an element of o.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "probabilities_params.h"

layout(push_constant) uniform Push { WeightedValuesParams p; };
layout(set = 0, binding = 0) writeonly buffer O { Stored o[]; };  // (batch, queries, heads, v_dim)
layout(set = 0, binding = 1) readonly buffer Map { float map[]; };  // (batch, heads, queries, keys)
layout(set = 0, binding = 2) readonly buffer V { Stored v[]; };

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint column = i % (p.heads * p.v_dim), head = column / p.v_dim;
    const uint query = i / (p.heads * p.v_dim) % p.queries;
    const uint batch = i / (p.heads * p.v_dim) / p.queries;
    const uint row = ((batch * p.heads + head) * p.queries + query) * p.keys;
    float sum = 0;
    for (uint j = 0; j < p.keys; ++j)
        sum += map[row + j] * load(v[(batch * p.keys + j) * p.v_pitch + column]);
    o[i] = store(sum);
}
