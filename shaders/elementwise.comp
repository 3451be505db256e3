#version 460
// Ops on single elements; which one is a specialisation constant.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/activation.glsl"
#include "common/index.glsl"
#include "params.h"

layout(constant_id = 1) const uint OP = 0;
// Number of terms (linear), kind (activate), or 1 where b has the shape of a (add, multiply).
layout(constant_id = 2) const uint VARIANT = 0;

layout(set = 0, binding = 0) writeonly buffer Y { Stored y[]; };
layout(set = 0, binding = 1) readonly buffer A { Stored a[]; };
layout(set = 0, binding = 2) readonly buffer B { Stored b[]; };
layout(set = 0, binding = 3) readonly buffer C { Stored c[]; };
layout(set = 0, binding = 4) readonly buffer D { Stored d[]; };
layout(push_constant) uniform Push { ElementwiseParams p; };

float linear(uint i) {
    float v = p.coefficients[0] * load(a[i]);
    if (VARIANT > 1) v += p.coefficients[1] * load(b[i]);
    if (VARIANT > 2) v += p.coefficients[2] * load(c[i]);
    if (VARIANT > 3) v += p.coefficients[3] * load(d[i]);
    return v;
}

float broadcast_add(uint i) {  // i in (rows, batch, n)
    const uint line = i / p.n, j = i - line * p.n;
    const uint row = line / p.batch, batch = line - row * p.batch;
    const uint b_row = p.b_rows == 1 ? 0 : row;
    return load(a[row * p.n + j]) + load(b[(batch * p.b_rows + b_row) * p.n + j]);
}

// tanh(u) = 1 − 2 / (exp(2u) + 1): neither end overflows into NaN.
float soft_clamp(float v, float limit) {
    return limit - 2.0 * limit / (exp(2.0 / limit * v) + 1.0);
}

float compute(uint i) {
    if (OP == ELEMENTWISE_LINEAR) return linear(i);
    if (OP == ELEMENTWISE_BROADCAST_ADD) return broadcast_add(i);
    const float v = load(a[i]);
    if (OP == ELEMENTWISE_ACTIVATE) return activate(v, VARIANT);
    if (OP == ELEMENTWISE_SOFT_CLAMP) return soft_clamp(v, p.coefficients[0]);
    const uint j = VARIANT == 1 ? i : i % p.n;
    if (OP == ELEMENTWISE_ADD) return v + load(b[j]);
    if (OP == ELEMENTWISE_MULTIPLY) return v * load(b[j]);
    return v * load(b[j]) + load(c[j]);
}

void main() {
    const uint i = linear_invocation();
    if (i < p.count) y[i] = store(compute(i));
}
