#version 460
// Which blocks of keys a block of queries sees, from pooled queries and keys (Rectified SpaAttn), and
// the list that the attention kernels walk. A workgroup has one row of blocks:
// 1. attention of the mean query to the mean keys of blocks, weighed by their tokens, and to every text
//    token: p;
// 2. the largest threshold at which the blocks that always count and those with p at or above it are
//    `least` or more and exceed `mass`: found bit by bit, for p ≥ 0 has the order of its bits; no sort,
//    and blocks with equal p are kept or left together;
// 3. of the blocks left out those whose pooled score is worth more than its error, which keep their p
//    and their mean value in place of their keys;
// 4. the row of the list: tiles without masks first, in ascending order.
// Sums run over the lanes in one order: the same bits every time.
//
// Dispatch: (blocks, heads, batch).
#extension GL_GOOGLE_include_directive : require
#include "list_params.h"
#include "select_params.h"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LANES = 64;
layout(constant_id = 1) const uint MOST_BLOCKS = 64;  // of the grid, or more

layout(push_constant) uniform Push { SelectParams p; };
layout(set = 0, binding = 0) buffer List { uint list[]; };
layout(set = 0, binding = 1) writeonly buffer Factors { float factors[]; };  // a row
layout(set = 0, binding = 2) writeonly buffer Addends { vec4 addends[]; };   // (rows, dv4)
layout(set = 0, binding = 3) writeonly buffer Kept { uint kept_blocks[]; };  // a row, of the grid
layout(set = 0, binding = 4) readonly buffer QMeans { vec4 q_means[]; };
layout(set = 0, binding = 5) readonly buffer QSpreads { vec4 q_spreads[]; };
layout(set = 0, binding = 6) readonly buffer KMeans { vec4 k_means[]; };
layout(set = 0, binding = 7) readonly buffer KSpreads { vec4 k_spreads[]; };
layout(set = 0, binding = 8) readonly buffer VMeans { vec4 v_means[]; };
layout(set = 0, binding = 9) readonly buffer Touch { uint touch[]; };  // a bit a pair of blocks
layout(set = 0, binding = 10) readonly buffer TileMasks { uint tile_masks[]; };

const uint FULL_BLOCK = 0xffffffff;
const uint KEPT = 1, WORTH = 2;  // bits of a state
const float LEAST = -3.402823466e38;

shared float shares[MOST_BLOCKS];  // scores, then p
shared uint states[MOST_BLOCKS];
shared float sums[LANES];
shared uint counts[LANES];

uint lane;
uint row_block;
uint own_head;

float sum_of_lanes(float own) {
    sums[lane] = own;
    barrier();
    float sum = 0;
    for (uint l = 0; l < LANES; ++l) sum += sums[l];
    barrier();
    return sum;
}

float max_of_lanes(float own) {
    sums[lane] = own;
    barrier();
    float most = LEAST;
    for (uint l = 0; l < LANES; ++l) most = max(most, sums[l]);
    barrier();
    return most;
}

uint count_of_lanes(uint own) {
    counts[lane] = own;
    barrier();
    uint sum = 0;
    for (uint l = 0; l < LANES; ++l) sum += counts[l];
    barrier();
    return sum;
}

// Of the lanes before this one.
uint count_before(uint own) {
    counts[lane] = own;
    barrier();
    uint sum = 0;
    for (uint l = 0; l < lane; ++l) sum += counts[l];
    barrier();
    return sum;
}

bool touches(uint column) {
    const uint words = (p.grid_blocks + p.text_blocks + 31) / 32;
    return (touch[row_block * words + column / 32] >> (column % 32) & 1) != 0;
}

float tokens_of(uint block) {
    return float(min(p.block, p.grid_tokens - block * p.block));
}

// Fills shares and states; returns the text's share.
float pooled_attention() {
    const uint kv_head = gl_WorkGroupID.z * p.kv_heads + gl_WorkGroupID.y / (p.heads / p.kv_heads);
    const uint q_at = (own_head * p.grid_blocks + row_block) * p.d4;
    const uint k_at = kv_head * (p.grid_blocks + p.text_tokens) * p.d4;
    float most = LEAST;
    for (uint b = lane; b < p.grid_blocks; b += LANES) {
        vec4 score = vec4(0), q_error = vec4(0), k_error = vec4(0);
        for (uint c = 0; c < p.d4; ++c) {
            const vec4 q = q_means[q_at + c], k = k_means[k_at + b * p.d4 + c];
            score = fma(q, k, score);
            if (p.rectify != 0) {
                q_error = fma(q_spreads[q_at + c], k, q_error);
                k_error = fma(q, k_spreads[k_at + b * p.d4 + c], k_error);
            }
        }
        const vec4 one = vec4(1);
        const float s = dot(score, one);
        const bool worth = abs(s) > abs(dot(q_error, one)) + abs(dot(k_error, one));
        shares[b] = s * p.scale;
        states[b] = (touches(b) ? KEPT : 0) | (p.rectify != 0 && worth ? WORTH : 0);
        most = max(most, s * p.scale);
    }
    float text_most = LEAST, text_sum = 0;
    for (uint t = lane; t < p.text_tokens; t += LANES) {
        vec4 score = vec4(0);
        for (uint c = 0; c < p.d4; ++c)
            score = fma(q_means[q_at + c], k_means[k_at + (p.grid_blocks + t) * p.d4 + c], score);
        const float s = dot(score, vec4(1)) * p.scale, larger = max(text_most, s);
        text_sum = text_sum * exp(text_most - larger) + exp(s - larger);
        text_most = larger;
    }
    most = max_of_lanes(max(most, text_most));
    float own = 0;
    for (uint b = lane; b < p.grid_blocks; b += LANES) {
        shares[b] = tokens_of(b) * exp(shares[b] - most);
        own += shares[b];
    }
    const float text = sum_of_lanes(text_sum * exp(text_most - most));
    const float all = sum_of_lanes(own) + text;
    for (uint b = lane; b < p.grid_blocks; b += LANES) shares[b] /= all;
    return text / all;
}

bool is_enough(uint threshold, float text) {
    float mass = 0;
    uint count = 0;
    for (uint b = lane; b < p.grid_blocks; b += LANES)
        if ((states[b] & KEPT) != 0 || floatBitsToUint(shares[b]) >= threshold) {
            mass += shares[b];
            ++count;
        }
    mass = sum_of_lanes(mass) + text;
    count = count_of_lanes(count);
    return mass > p.mass && count >= p.least;
}

void select() {
    const float text = pooled_attention();
    uint threshold = 0;
    for (int bit = 30; bit >= 0; --bit) {
        const uint higher = threshold | 1u << bit;
        if (is_enough(higher, text)) threshold = higher;
    }
    for (uint b = lane; b < p.grid_blocks; b += LANES)
        if (floatBitsToUint(shares[b]) >= threshold) states[b] |= KEPT;
    barrier();
}

// o = factor · o of what is seen + addend.
void write_rectification(uint row) {
    float pooled = 0;
    for (uint b = lane; b < p.grid_blocks; b += LANES)
        if (states[b] == WORTH) pooled += shares[b];
    pooled = sum_of_lanes(pooled);
    if (lane == 0) factors[row] = max(1 - pooled, 0.0);
    const uint kv_head = gl_WorkGroupID.z * p.kv_heads + gl_WorkGroupID.y / (p.heads / p.kv_heads);
    for (uint c = lane; c < p.dv4; c += LANES) {
        vec4 sum = vec4(0);
        if (pooled > 0)
            for (uint b = 0; b < p.grid_blocks; ++b)
                if (states[b] == WORTH)
                    sum += shares[b] * v_means[(kv_head * p.grid_blocks + b) * p.dv4 + c];
        addends[row * p.dv4 + c] = sum;
    }
}

bool is_kept(uint block, bool all) {
    return all || block >= p.grid_blocks || (states[block] & KEPT) != 0;
}

void write_row(bool all) {
    const uint blocks = p.grid_blocks + p.text_blocks, tiles = p.k_tiles / blocks;
    const uint each = (blocks + LANES - 1) / LANES, begin = lane * each;
    const uint end = min(begin + each, blocks);
    uint own_full = 0, own_masked = 0;
    for (uint b = begin; b < end; ++b)
        if (is_kept(b, all))
            for (uint t = b * tiles; t < (b + 1) * tiles; ++t) {
                if (tile_masks[t] == FULL_BLOCK) ++own_full;
                else if (tile_masks[t] != TILE_EMPTY) ++own_masked;
            }
    const uint full = count_of_lanes(own_full), masked = count_of_lanes(own_masked);
    const uint first = row_block * p.k_tiles;
    const uint at = p.blocks_at + 2 * (own_head * blocks * p.k_tiles + first);
    uint next_full = at + 2 * count_before(own_full);
    uint next_masked = at + 2 * (full + count_before(own_masked));
    for (uint b = begin; b < end; ++b)
        if (is_kept(b, all))
            for (uint t = b * tiles; t < (b + 1) * tiles; ++t) {
                const uint mask = tile_masks[t];
                if (mask == TILE_EMPTY) continue;
                const uint next = mask == FULL_BLOCK ? next_full : next_masked;
                list[next] = t;
                list[next + 1] = mask;
                if (mask == FULL_BLOCK) next_full += 2;
                else next_masked += 2;
            }
    const uint q_tiles = p.q_tiles / blocks;
    for (uint t = lane; t < q_tiles; t += LANES) {
        const uint row = p.rows_at + 2 * (own_head * p.q_tiles + row_block * q_tiles + t);
        list[row] = first;
        list[row + 1] = full + masked;
    }
}

void main() {
    lane = gl_LocalInvocationIndex;
    row_block = gl_WorkGroupID.x;
    own_head = gl_WorkGroupID.z * p.heads + gl_WorkGroupID.y;
    const uint row = own_head * (p.grid_blocks + p.text_blocks) + row_block;
    const bool is_text = row_block >= p.grid_blocks;
    uint own = 0;
    if (!is_text) {
        select();
        for (uint b = lane; b < p.grid_blocks; b += LANES) own += states[b] & KEPT;
    }
    const uint kept = count_of_lanes(own);
    if (lane == 0) kept_blocks[row] = is_text ? p.grid_blocks : kept;
    if (p.rectify != 0) {
        if (is_text) {
            if (lane == 0) factors[row] = 1;
            for (uint c = lane; c < p.dv4; c += LANES) addends[row * p.dv4 + c] = vec4(0);
        } else {
            write_rectification(row);
        }
    }
    write_row(is_text);
}
