#version 460
// softmax(scale · q·k) in full, for few keys: an invocation has a row, which it writes as logits
// and then goes over twice.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "probabilities_params.h"

layout(push_constant) uniform Push { ProbabilitiesParams p; };
layout(set = 0, binding = 0) buffer Map { float map[]; };  // (batch, heads, queries, keys)
layout(set = 0, binding = 1) readonly buffer Q { Stored q[]; };
layout(set = 0, binding = 2) readonly buffer K { Stored k[]; };

const float LOWEST = -3.4e38;

void main() {
    const uint row = linear_invocation();
    if (row >= p.rows) return;
    const uint query = row % p.queries, head = row / p.queries % p.heads;
    const uint batch = row / p.queries / p.heads;
    const uint from_q = (batch * p.queries + query) * p.q_pitch + head * p.head_dim;
    const uint from_k = batch * p.keys * p.k_pitch + head * p.head_dim, to = row * p.keys;

    float most = LOWEST;
    for (uint j = 0; j < p.keys; ++j) {
        float dot = 0;
        for (uint c = 0; c < p.head_dim; ++c)
            dot += load(q[from_q + c]) * load(k[from_k + j * p.k_pitch + c]);
        map[to + j] = dot * p.scale;
        most = max(most, dot * p.scale);
    }
    float sum = 0;
    for (uint j = 0; j < p.keys; ++j) sum += exp(map[to + j] - most);
    const float inverse = 1 / sum;
    for (uint j = 0; j < p.keys; ++j) map[to + j] = exp(map[to + j] - most) * inverse;
}
