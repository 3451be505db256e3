#version 460
// exp(x − max) / Σ exp(x − max) over the last axis. A row of −∞ has no weight to give: it is 0.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/rows.glsl"
#include "params.h"

layout(set = 0, binding = 0) writeonly buffer Y { Stored y[]; };
layout(set = 0, binding = 1) readonly buffer X { Stored x[]; };
layout(push_constant) uniform Push { SoftmaxParams p; };

const float LOWEST = -3.4e38;

void main() {
    const uint row = this_row();
    if (row >= p.rows) return;
    const uint base = row * p.n;

    float most = LOWEST;
    for (uint j = first_column(); j < p.n; j += column_step()) most = max(most, load(x[base + j]));
    most = row_max(most);

    float sum = 0;
    for (uint j = first_column(); j < p.n; j += column_step()) sum += exp(load(x[base + j]) - most);
    sum = row_sum(sum);

    const float inverse = sum == 0.0 ? 0.0 : 1.0 / sum;
    for (uint j = first_column(); j < p.n; j += column_step())
        y[base + j] = store(exp(load(x[base + j]) - most) * inverse);
}
