#version 460
// Rotary position embedding, optionally after an RMS norm of each head vector (QK-norm). A row is
// one head of one token; pairs are neighbours. cos and sin come from the host, where angles of
// thousands of radians keep their digits.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/rows.glsl"
#include "params.h"

layout(constant_id = 2) const bool HAS_NORM = false;

layout(set = 0, binding = 0) writeonly buffer Y { Stored y[]; };
layout(set = 0, binding = 1) readonly buffer X { Stored x[]; };
layout(set = 0, binding = 2) readonly buffer Table { vec2 table[]; };  // (tokens, rotated / 2)
layout(set = 0, binding = 3) readonly buffer Weight { Stored weight[]; };
layout(push_constant) uniform Push { RopeParams p; };

float head(uint base, uint j, float inverse) {
    const float v = load(x[base + j]);
    return HAS_NORM ? v * inverse * load(weight[j]) : v;
}

void main() {
    const uint row = this_row();
    if (row >= p.rows) return;
    const uint token = row / p.together, to = row * p.head_dim;
    const uint base = token * p.pitch + row % p.together * p.head_dim;

    float inverse = 1;
    if (HAS_NORM) {
        float squares = 0;
        for (uint j = first_column(); j < p.head_dim; j += column_step()) {
            const float v = load(x[base + j]);
            squares += v * v;
        }
        inverse = inversesqrt(row_sum(squares) / float(p.head_dim) + p.eps);
    }

    const uint pairs = p.rotated / 2;
    const uint angles = (token % p.tokens) * pairs;
    for (uint j = first_column(); j < pairs; j += column_step()) {
        const float a = head(base, 2 * j, inverse), b = head(base, 2 * j + 1, inverse);
        const vec2 turn = table[angles + j];
        y[to + 2 * j] = store(a * turn.x - b * turn.y);
        y[to + 2 * j + 1] = store(a * turn.y + b * turn.x);
    }
    for (uint j = p.rotated + first_column(); j < p.head_dim; j += column_step())
        y[to + j] = store(head(base, j, inverse));
}
