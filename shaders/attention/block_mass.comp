#version 460
// The attention map summed over blocks of keys and averaged over blocks of queries, fp32. The LSE of
// every query is known, so the weight of a pair is exp(score − lse) and the map need not exist: a
// workgroup recomputes the scores of one block of queries with CHUNK of the key blocks it visits,
// LANES · ROWS queries by BC keys at a time. Every lane keeps a sum of its own for each key block
// and the lanes' sums are added in one order: no atomics, the same bits every time.
//
// How rows of q and k get into registers, and why twice: tile_scalar.glsl.
//
// Dispatch: (query blocks, batch · heads, chunks of the longest row of the list).
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_ballot : require
#include "block_mass_params.h"
#include "list_params.h"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LANES = 8;
layout(constant_id = 1) const uint ROWS = 2;  // queries an invocation
layout(constant_id = 2) const uint BC = 16;   // keys at a time
layout(constant_id = 3) const uint HEAD_DIM = 64;
layout(constant_id = 4) const uint CHUNK = 16;          // key blocks a workgroup
layout(constant_id = 5) const bool UNROLL = true;       // loops over columns
layout(constant_id = 6) const bool HAND_ROUND = false;  // needs LANES = subgroup size
layout(constant_id = 7) const bool ORDERED = false;     // slots are not tokens

layout(push_constant) uniform Push { BlockMassParams p; };
layout(set = 0, binding = 0) writeonly buffer Mass { float mass[]; };
layout(set = 0, binding = 1) readonly buffer Q { Stored4 q_data[]; };
layout(set = 0, binding = 2) readonly buffer K { Stored4 k_data[]; };
layout(set = 0, binding = 3) readonly buffer Lse { float lse_data[]; };
layout(set = 0, binding = 4) readonly buffer List { uint list[]; };

const uint BR = LANES * ROWS;
const uint D4 = HEAD_DIM / 4;
const uint LOADS = HAND_ROUND ? 2 * BC / LANES : 1;  // a pair of columns of a block
const float LOG2E = 1.4426950408889634;
const uint MINUS_INFINITY = 0xff800000;
const uint FULL_BLOCK = 0xffffffff;
const uint NO_TOKEN = 0xffffffff;

shared float partial[(CHUNK + 1) * LANES];  // the last row counts queries

vec4 q[ROWS * D4];
float s[ROWS * BC];
float lse[ROWS];   // to base 2
bool alive[ROWS];  // a query, and one that sees keys
uint key_at[BC];   // its row, or what this lane loads of it

uint masks_at, q_order_at, k_order_at;

uint token_of(uint order_at, uint slot, uint len) {
    if (ORDERED) return list[order_at + slot];
    return slot < len ? slot : NO_TOKEN;
}

// Runs `step` for every second column c.
#define EACH_COLUMN_PAIR(step)                                 \
    if (UNROLL) {                                              \
        [[unroll]] for (uint c = 0; c < D4; c += 2) step;      \
    } else {                                                   \
        [[dont_unroll]] for (uint c = 0; c < D4; c += 2) step; \
    }

void load_columns(uint at[ROWS], uint c) {
    [[unroll]] for (uint r = 0; r < ROWS; ++r)
        [[unroll]] for (uint i = c; i < c + 2; ++i)
            q[r * D4 + i] = load4(q_data[at[r] + i]) * p.scale;
}

// Queries q_begin … of the block; returns how many of this lane's there are.
uint load_queries(uint q_begin) {
    uint count = 0, at[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        const uint in_block = q_begin + r * LANES + gl_LocalInvocationIndex;
        uint token = NO_TOKEN;
        if (in_block < p.block_q)
            token = token_of(q_order_at, gl_WorkGroupID.x * p.block_q + in_block, p.q_len);
        const uint row = gl_WorkGroupID.y * p.q_len + min(token, p.q_len - 1);
        const float own = lse_data[row];
        lse[r] = own * LOG2E;
        alive[r] = token < p.q_len && floatBitsToUint(own) != MINUS_INFINITY;
        if (token < p.q_len) ++count;
        at[r] = row * D4;
    }
    EACH_COLUMN_PAIR(load_columns(at, c))
    return count;
}

// Start of the row of a key in vec4. Slots that hold none read any: they are masked.
uint row_of_key(uint kv_head, uint key_block, uint in_block) {
    const uint slot = key_block * p.block_k + min(in_block, p.block_k - 1);
    return (kv_head * p.kv_len + min(token_of(k_order_at, slot, p.kv_len), p.kv_len - 1)) * D4;
}

void find_keys(uint kv_head, uint key_block, uint k_begin) {
    if (HAND_ROUND) {
        [[unroll]] for (uint g = 0; g < LOADS; ++g)
            key_at[g] = row_of_key(kv_head, key_block,
                                   k_begin + g * LANES / 2 + gl_SubgroupInvocationID / 2) +
                        gl_SubgroupInvocationID % 2;
    } else {
        [[unroll]] for (uint j = 0; j < BC; ++j)
            key_at[j] = row_of_key(kv_head, key_block, k_begin + j);
    }
}

void scores_columns(uint c) {
    vec4 x[ROWS][2];
    [[unroll]] for (uint r = 0; r < ROWS; ++r)
        [[unroll]] for (uint h = 0; h < 2; ++h) x[r][h] = q[r * D4 + c + h];
    vec4 own[LOADS];
    if (HAND_ROUND)
        [[unroll]] for (uint n = 0; n < LOADS; ++n) own[n] = load4(k_data[key_at[n] + c]);
    [[unroll]] for (uint j = 0; j < BC; ++j) {
        [[unroll]] for (uint h = 0; h < 2; ++h) {
            const vec4 k = HAND_ROUND ? subgroupBroadcast(own[j / (LANES / 2)],
                                                          j % (LANES / 2) * 2 + h)
                                      : load4(k_data[key_at[j] + c + h]);
            [[unroll]] for (uint r = 0; r < ROWS; ++r) {
                float sum = s[r * BC + j];
                [[unroll]] for (uint i = 0; i < 4; ++i) sum = fma(x[r][h][i], k[i], sum);
                s[r * BC + j] = sum;
            }
        }
    }
}

// Weights of this lane's queries with keys k_begin … of the block.
float weights(uint mask, uint q_begin, uint k_begin) {
    const uint words = (p.block_k + 31) / 32;
    float sum = 0;
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        const uint row = min(q_begin + r * LANES + gl_LocalInvocationIndex, p.block_q - 1);
        uint bits = 0xffffffff;  // of BC keys: k_begin is a multiple of BC, which divides 32
        if (mask != FULL_BLOCK)
            bits = list[masks_at + (mask * p.block_q + row) * words + k_begin / 32] >>
                   (k_begin % 32);
        if (!alive[r]) bits = 0;
        [[unroll]] for (uint j = 0; j < BC; ++j) {
            const bool sees = (bits >> j & 1) == 1 && k_begin + j < p.block_k;
            sum += sees ? exp2(s[r * BC + j] - lse[r]) : 0.0;
        }
    }
    return sum;
}

void main() {
    const uint lane = gl_LocalInvocationIndex;
    const uint batch = gl_WorkGroupID.y / p.n_heads, head = gl_WorkGroupID.y % p.n_heads;
    const uint kv_head = batch * p.n_kv_heads + head / (p.n_heads / p.n_kv_heads);
    const uint header = p.list_words * head;
    const uint rows_at = list[header + LIST_ROWS], blocks_at = list[header + LIST_BLOCKS];
    masks_at = list[header + LIST_MASKS];
    q_order_at = list[header + LIST_Q_ORDER];
    k_order_at = list[header + LIST_K_ORDER];

    const uint begin = gl_WorkGroupID.z * CHUNK, visited = list[rows_at + 2 * gl_WorkGroupID.x + 1];
    if (begin >= visited) return;
    const uint count = min(CHUNK, visited - begin);
    const uint first = blocks_at + 2 * (list[rows_at + 2 * gl_WorkGroupID.x] + begin);

    for (uint b = 0; b < count; ++b) partial[b * LANES + lane] = 0;
    uint queries = 0;
    for (uint q_begin = 0; q_begin < p.block_q; q_begin += BR) {
        queries += load_queries(q_begin);
        for (uint b = 0; b < count; ++b) {
            const uint key_block = list[first + 2 * b], mask = list[first + 2 * b + 1];
            float sum = 0;
            for (uint k_begin = 0; k_begin < p.block_k; k_begin += BC) {
                [[unroll]] for (uint i = 0; i < ROWS * BC; ++i) s[i] = 0;
                find_keys(kv_head, key_block, k_begin);
                EACH_COLUMN_PAIR(scores_columns(c))
                sum += weights(mask, q_begin, k_begin);
            }
            partial[b * LANES + lane] += sum;
        }
    }
    partial[CHUNK * LANES + lane] = queries;
    barrier();

    float all_queries = 0;
    for (uint l = 0; l < LANES; ++l) all_queries += partial[CHUNK * LANES + l];
    for (uint b = lane; b < count; b += LANES) {
        float sum = 0;
        for (uint l = 0; l < LANES; ++l) sum += partial[b * LANES + l];
        mass[(gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * p.key_blocks +
             list[first + 2 * b]] = sum / all_queries;
    }
}
