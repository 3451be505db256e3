#version 460
// Layer norm and RMS norm over the last axis, affine and modulated:
//   y = (x − mean) · rsqrt(variance + eps) · weight + bias, then · (1 + scale) + shift
// with mean 0 for RMS. One pass for both moments, taken about the row's first element: a sum of
// squares about 0 would cancel where the mean is large.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/rows.glsl"
#include "params.h"

layout(constant_id = 2) const bool RMS = false;
layout(constant_id = 3) const bool HAS_WEIGHT = false;
layout(constant_id = 4) const bool HAS_BIAS = false;
layout(constant_id = 5) const bool HAS_SHIFT = false;
layout(constant_id = 6) const bool HAS_SCALE = false;

layout(set = 0, binding = 0) writeonly buffer Y { Stored y[]; };
layout(set = 0, binding = 1) readonly buffer X { Stored x[]; };
layout(set = 0, binding = 2) readonly buffer Weight { Stored weight[]; };
layout(set = 0, binding = 3) readonly buffer Bias { Stored bias[]; };
layout(set = 0, binding = 4) readonly buffer Shift { Stored shift[]; };
layout(set = 0, binding = 5) readonly buffer Scale { Stored scale[]; };
layout(push_constant) uniform Push { NormParams p; };

void main() {
    const uint row = this_row();
    if (row >= p.rows) return;
    const uint base = row / p.together * p.pitch + row % p.together * p.n;
    const float center = RMS ? 0.0 : load(x[base]);

    float sum = 0, squares = 0;
    for (uint j = first_column(); j < p.n; j += column_step()) {
        const float d = load(x[base + j]) - center;
        if (!RMS) sum += d;
        squares += d * d;
    }
    squares = row_sum(squares) / float(p.n);
    const float offset = RMS ? 0.0 : row_sum(sum) / float(p.n);
    const float variance = max(squares - offset * offset, 0.0);
    const float mean = center + offset;
    const float inverse = inversesqrt(variance + p.eps);

    const uint modulation = (row / p.rows_per_batch) * p.n;
    for (uint j = first_column(); j < p.n; j += column_step()) {
        float v = (load(x[base + j]) - mean) * inverse;
        if (HAS_WEIGHT) v *= load(weight[j]);
        if (HAS_BIAS) v += load(bias[j]);
        if (HAS_SCALE) v *= 1.0 + load(scale[modulation + j]);
        if (HAS_SHIFT) v += load(shift[modulation + j]);
        y[row * p.n + j] = store(v);
    }
}
