#version 460
// Mean of every block of tokens and mean distance of its tokens from that, by channel, fp32; then the
// tokens behind the grid as they are, each a block of its own. An invocation owns four channels.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "select_params.h"

layout(push_constant) uniform Push { PoolParams p; };
layout(set = 0, binding = 0) writeonly buffer Means { vec4 means[]; };  // (batch · heads, entries, d4)
layout(set = 0, binding = 1) writeonly buffer Spreads { vec4 spreads[]; };
layout(set = 0, binding = 2) readonly buffer X { Stored4 x[]; };
layout(set = 0, binding = 3) readonly buffer Order { uint order[]; };

layout(constant_id = 1) const bool WITH_SPREADS = true;

const uint NO_TOKEN = 0xffffffff;

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint column = i % p.d4, entry = i / p.d4 % p.entries, head = i / p.d4 / p.entries;
    const uint at = head / p.heads * p.sample_pitch + head % p.heads * p.head_pitch + column;
    const bool single = entry >= p.blocks;
    const uint first = single ? p.blocks * p.block + entry - p.blocks : entry * p.block;
    const uint end = single ? first + 1 : first + p.block;
    vec4 sum = vec4(0);
    float tokens = 0;
    for (uint slot = first; slot < end; ++slot) {
        const uint token = order[slot];
        if (token == NO_TOKEN) break;
        sum += load4(x[at + token * p.token_pitch]);
        ++tokens;
    }
    const vec4 mean = sum / tokens;
    means[i] = mean;
    if (!WITH_SPREADS) return;
    sum = vec4(0);
    for (uint slot = first; slot < end; ++slot) {
        const uint token = order[slot];
        if (token == NO_TOKEN) break;
        sum += abs(load4(x[at + token * p.token_pitch]) - mean);
    }
    spreads[i] = sum / tokens;
}
