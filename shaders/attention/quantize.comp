#version 460
// q or k of attention with int8 scores: y = x / scale to the nearest, in −127 … 127, where the scale
// makes a block's largest magnitude 127. Keys lose their mean over all tokens first: what all keys
// have in common changes no weight, but would take up the range. A workgroup has one block: ROWS
// slots in the order of the list that attention walks; slots without a token, and columns behind
// HEAD_DIM, are 0.
//
// Values that are not finite become −128 eight at a time in keys, whose scale then is negative; in
// queries 0, and the row's q·mean NaN.
//
// Method: SageAttention (https://arxiv.org/abs/2410.02367). Dispatch: (blocks, heads, batch).
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "common/half_vectors.glsl"
#include "list_params.h"
#include "quantize_params.h"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(constant_id = 1) const uint HEAD_DIM = 64;
layout(constant_id = 2) const uint COLUMNS = 64;  // of a row of y, HEAD_DIM or more
layout(constant_id = 3) const uint ROWS = 64;
layout(constant_id = 4) const bool QUERIES = false;
layout(constant_id = 5) const bool ORDERED = false;  // slots are not tokens
layout(constant_id = 6) const bool MEAN = true;      // of keys: always; of queries: where it is wanted

layout(push_constant) uniform Push { QuantizeParams p; };
layout(set = 0, binding = 0) writeonly buffer Y { uvec2 y[]; };
// Keys: the scale of each block. Queries, of each slot: scale · log2(e) · q·mean, and the scale of
// its block times |scale| · log2(e).
layout(set = 0, binding = 1) writeonly buffer Scales { float scales[]; };
layout(set = 0, binding = 2) readonly buffer X { uvec4 x[]; };
layout(set = 0, binding = 3) readonly buffer XExtra { uvec4 x_extra[]; };
layout(set = 0, binding = 4) readonly buffer Sums { float sums[]; };
layout(set = 0, binding = 5) readonly buffer List { uint list[]; };

const uint VECTORS = COLUMNS / 8;
const uint LOADS = (ROWS * VECTORS + WORKGROUP - 1) / WORKGROUP;
const uint NO_TOKEN = 0xffffffff;

shared vec4 mean[COLUMNS / 4];
shared vec2 largest_of[WORKGROUP / 4];  // subgroups have at least 4 invocations
shared float products[QUERIES ? ROWS * VECTORS : 1];

vec4 low[LOADS], high[LOADS];
bool bad[LOADS];

void find_mean() {
    const uint heads = gl_NumWorkGroups.y / p.mean_group;
    const uint head = gl_WorkGroupID.z * heads + gl_WorkGroupID.y / p.mean_group;
    for (uint c = gl_LocalInvocationIndex; c < COLUMNS; c += WORKGROUP) {
        float sum = 0;
        if (MEAN && c < HEAD_DIM)
            for (uint chunk = 0; chunk < p.chunks; ++chunk)
                sum += sums[(head * p.chunks + chunk) * HEAD_DIM + c];
        mean[c / 4][c % 4] = sum / float(p.kv_len);
    }
    barrier();
}

float largest(vec4 a, vec4 b) {
    const vec4 both = max(abs(a), abs(b));
    return max(max(both.x, both.y), max(both.z, both.w));
}

// Of all invocations: a magnitude, and 1 where something is not finite.
vec2 workgroup_max(vec2 own) {
    own = subgroupMax(own);
    if (subgroupElect()) largest_of[gl_SubgroupID] = own;
    barrier();
    own = largest_of[0];
    for (uint i = 1; i < gl_NumSubgroups; ++i) own = max(own, largest_of[i]);
    return own;
}

void main() {
    const uint header = p.list_words * gl_WorkGroupID.y;
    const uint key_tiles = list[header + LIST_KEY_TILES];
    const bool extra = !QUERIES && gl_WorkGroupID.x >= key_tiles;
    const uint first = (extra ? gl_WorkGroupID.x - key_tiles : gl_WorkGroupID.x) * ROWS;
    const uint len = extra ? p.extra_len : p.len;
    const uint order_at = list[header + (QUERIES ? LIST_Q_ORDER : LIST_K_ORDER)];
    const uint heads = gl_NumWorkGroups.y / p.head_group;
    const uint rows_at = (gl_WorkGroupID.z * heads + gl_WorkGroupID.y / p.head_group) * len;
    find_mean();

    vec2 own = vec2(0);
    [[unroll]] for (uint n = 0; n < LOADS; ++n) {
        const uint at = n * WORKGROUP + gl_LocalInvocationIndex;
        const uint row = at / VECTORS, column = at % VECTORS;
        low[n] = high[n] = vec4(0);
        bad[n] = false;
        if (row >= ROWS) continue;
        uint token = first + row;
        if (ORDERED && !extra) token = list[order_at + token];
        float product = 0;
        if (token < len && column < HEAD_DIM / 8) {
            const uint from = (rows_at + token) * (HEAD_DIM / 8) + column;
            const uvec4 vector = extra ? x_extra[from] : x[from];
            bvec4 bad_low, bad_high;
            not_finite(vector, bad_low, bad_high);
            bad[n] = any(bad_low) || any(bad_high);
            if (!bad[n]) {
                unpack(vector, low[n], high[n]);
                const vec4 a = mean[2 * column], b = mean[2 * column + 1];
                product = dot(low[n], a) + dot(high[n], b);
                if (!QUERIES) {
                    low[n] -= a;
                    high[n] -= b;
                }
            }
        }
        own = max(own, vec2(largest(low[n], high[n]), bad[n] ? 1 : 0));
        if (QUERIES) products[at] = bad[n] ? uintBitsToFloat(0x7fc00000) : product;
    }
    own = workgroup_max(own);
    // Above 0 where all is 0, times the other side's too: a masked score is −∞, and −∞ · 0 no number.
    const float scale = max(own.x / 127, 1e-18);
    const float sign = QUERIES && p.scale < 0 ? -1 : 1;  // the softmax relies on a scale above 0
    const float inverse = own.x > 0 ? sign / own.x : 0;
    const uint block =
        (gl_WorkGroupID.z * gl_NumWorkGroups.y + gl_WorkGroupID.y) * gl_NumWorkGroups.x +
        gl_WorkGroupID.x;
    [[unroll]] for (uint n = 0; n < LOADS; ++n) {
        const uint at = n * WORKGROUP + gl_LocalInvocationIndex;
        if (at >= ROWS * VECTORS) continue;
        // To the nearest of i / 127.
        const uvec2 vector =
            uvec2(packSnorm4x8(low[n] * inverse), packSnorm4x8(high[n] * inverse));
        y[block * ROWS * VECTORS + at] = !QUERIES && bad[n] ? uvec2(0x80808080) : vector;
    }
    if (!QUERIES) {
        if (gl_LocalInvocationIndex == 0) scales[block] = own.y > 0 ? -scale : scale;
        return;
    }
    for (uint row = gl_LocalInvocationIndex; row < ROWS; row += WORKGROUP) {
        float sum = 0;
        for (uint v = 0; v < VECTORS; ++v) sum += products[row * VECTORS + v];
        scales[2 * (block * ROWS + row)] = sum * p.scale;
        scales[2 * (block * ROWS + row) + 1] = max(scale * abs(p.scale), 1e-18);
    }
}
