#version 460
// Σ gate_l · context_l, a gate for every row; the last context may be one row for many. An
// invocation owns four channels of a row.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer Y { Stored4 y[]; };
layout(set = 0, binding = 1) readonly buffer Gates { Stored gates[]; };
layout(set = 0, binding = 2) readonly buffer Last { Stored4 last[]; };
layout(set = 0, binding = 3) readonly buffer A { Stored4 a[]; };
layout(set = 0, binding = 4) readonly buffer B { Stored4 b[]; };
layout(set = 0, binding = 5) readonly buffer C { Stored4 c[]; };
layout(push_constant) uniform Push { MixParams p; };

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint row = i / p.c4, gate = row * p.heads;  // a gate for each context
    const uint last_row = row / p.rows;  // rows that share a row of the last context
    vec4 sum = load(gates[gate + p.heads - 1]) * load4(last[last_row * p.c4 + i - row * p.c4]);
    if (p.heads > 1) sum += load(gates[gate]) * load4(a[i]);
    if (p.heads > 2) sum += load(gates[gate + 1]) * load4(b[i]);
    if (p.heads > 3) sum += load(gates[gate + 2]) * load4(c[i]);
    y[i] = store4(sum);
}
