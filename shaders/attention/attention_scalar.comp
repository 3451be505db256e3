#version 460
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_KHR_shader_subgroup_vote : require

// Attention on plain registers, any Vulkan device.

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LANES = 8;
layout(constant_id = 5) const uint ROWS = 2;  // queries an invocation
layout(constant_id = 6) const bool UNROLL = true;       // see tile_scalar.glsl
layout(constant_id = 7) const bool HAND_ROUND = false;  // needs LANES = subgroup size

const uint BR = LANES * ROWS;
#define Vector Stored4

#include "attention.glsl"
#include "tile_scalar.glsl"
