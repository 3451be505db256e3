#version 460
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_ballot : require

// Attention on plain registers, any Vulkan device.

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LANES = 8;
layout(constant_id = 1) const uint ROWS = 2;  // queries an invocation
layout(constant_id = 2) const uint BC = 16;   // keys a block
layout(constant_id = 3) const uint HEAD_DIM = 64;
layout(constant_id = 4) const bool EXTRA = false;  // whether there are extra keys
layout(constant_id = 5) const bool UNROLL = true;      // see tile_scalar.glsl
layout(constant_id = 6) const bool HAND_ROUND = false;  // needs LANES = subgroup size

const uint BR = LANES * ROWS;

#include "attention.glsl"
#include "tile_scalar.glsl"
