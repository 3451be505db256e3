#version 460
// y = sign · clamp(factor + shift, 0, 1) · x + addend. By rows: a factor a query, and an addend that
// lies as x does. By blocks: both of a block of slots, in an order of tokens. y may be x.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "rescale_params.h"

layout(constant_id = 1) const bool BLOCKS = false;

layout(push_constant) uniform Push { RescaleParams p; };
layout(set = 0, binding = 0) writeonly buffer Y { Stored4 y[]; };
layout(set = 0, binding = 1) readonly buffer X { Stored4 x[]; };
layout(set = 0, binding = 2) readonly buffer Factors { float factors[]; };
layout(set = 0, binding = 3) readonly buffer Addends { Stored4 addends[]; };
layout(set = 0, binding = 4) readonly buffer BlockAddends { vec4 block_addends[]; };
layout(set = 0, binding = 5) readonly buffer Order { uint order[]; };

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    const uint column = i % p.d4, slot = i / p.d4 % p.slots, head = i / p.d4 / p.slots;
    const uint token = BLOCKS ? order[slot] : slot;
    if (token >= p.tokens) return;
    const uint at = head / p.heads * p.sample_pitch + head % p.heads * p.head_pitch +
                    token * p.token_pitch + column;
    const uint row = BLOCKS ? head * (p.slots / p.block) + slot / p.block : head * p.slots + slot;
    const vec4 addend = BLOCKS ? block_addends[row * p.d4 + column] : load4(addends[at]);
    y[at] = store4(p.sign * clamp(factors[row] + p.shift, 0.0, 1.0) * load4(x[at]) + addend);
}
