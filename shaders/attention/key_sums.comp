#version 460
// Sums of the keys of a head over chunks of tokens, by channel and in fp32: what quantize.comp takes
// the mean from. What is not finite counts as 0. One order of adding: the same bits every time.
//
// Dispatch: (chunks, batch · heads).
#extension GL_GOOGLE_include_directive : require
#include "common/half_vectors.glsl"
#include "quantize_params.h"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint WORKGROUP = 256;
layout(constant_id = 1) const uint HEAD_DIM = 64;

layout(push_constant) uniform Push { KeySumsParams p; };
layout(set = 0, binding = 0) writeonly buffer Sums { float sums[]; };
layout(set = 0, binding = 1) readonly buffer K { uvec4 k_data[]; };

const uint VECTORS = HEAD_DIM / 8;
const uint ROWS = WORKGROUP / VECTORS;  // tokens at a time

shared float partial[ROWS * HEAD_DIM];

void main() {
    const uint column = gl_LocalInvocationIndex % VECTORS, row = gl_LocalInvocationIndex / VECTORS;
    const uint begin = gl_WorkGroupID.x * p.chunk, end = min(begin + p.chunk, p.kv_len);
    vec4 low = vec4(0), high = vec4(0);
    if (row < ROWS) {
        for (uint token = begin + row; token < end; token += ROWS) {
            uvec4 vector = k_data[(gl_WorkGroupID.y * p.kv_len + token) * VECTORS + column];
            bvec4 bad_low, bad_high;
            not_finite(vector, bad_low, bad_high);
            vec4 a, b;
            unpack(finite_part(vector, bad_low, bad_high), a, b);
            low += a;
            high += b;
        }
        for (uint i = 0; i < 4; ++i) {
            partial[row * HEAD_DIM + column * 8 + i] = low[i];
            partial[row * HEAD_DIM + column * 8 + 4 + i] = high[i];
        }
    }
    barrier();
    const uint at = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * HEAD_DIM;
    for (uint c = gl_LocalInvocationIndex; c < HEAD_DIM; c += WORKGROUP) {
        float sum = 0;
        for (uint r = 0; r < ROWS; ++r) sum += partial[r * HEAD_DIM + c];
        sums[at + c] = sum;
    }
}
