#version 460
// Gaussian filter along the middle axis of (outer, n, inner), weights renormalised at the ends; an
// invocation a result, summed in one order. inner: tokens · heads · head_dim; heads that are not
// chosen pass as they are.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer Y { Stored y[]; };
layout(set = 0, binding = 1) readonly buffer X { Stored x[]; };
layout(set = 0, binding = 2) readonly buffer Chosen { float chosen[]; };
layout(push_constant) uniform Push { BlurParams p; };

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint row = i / p.inner, inside = i - row * p.inner;
    if (chosen[inside / p.head_dim % p.heads] == 0) {
        y[i] = x[i];
        return;
    }
    const uint outer = row / p.n, at = row - outer * p.n;
    uint from = outer * p.n * p.inner + inside;
    float sum = 0, weights = 0;
    for (uint j = 0; j < p.n; ++j, from += p.inner) {
        const float distance = float(j) - float(at);
        const float weight = exp(-distance * distance * p.falloff);
        sum += weight * load(x[from]);
        weights += weight;
    }
    y[i] = store(sum / weights);
}
