#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#ifndef EMULATED
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#ifdef INT8_SCORES
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#endif
#endif

// Attention on VK_KHR_cooperative_matrix, whatever shapes the device reports; fp16 tensors.

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint WORKGROUP = 32;
layout(constant_id = 5) const uint SUBGROUPS = 1;
layout(constant_id = 6) const uint MAT_M = 16;
layout(constant_id = 7) const uint MAT_N = 16;
layout(constant_id = 8) const uint MAT_K = 16;
layout(constant_id = 9) const uint SCORE_K = 16;  // of int8 products, MAT_M × MAT_N × SCORE_K
const uint ROW_TILES = 1;
#ifndef EMULATED
#define FULL_BLOCKS_APART
#endif
const uint UNROLL = 1;

const uint LANES = WORKGROUP / SUBGROUPS;
const uint BR = SUBGROUPS * ROW_TILES * MAT_M;
#define S_TILE (MAT_M * (BC + MAT_N))  // words of shared memory a subgroup
#define Vector uvec4

#include "attention.glsl"
#include "common/half_vectors.glsl"
#include "common/matrices.glsl"
#include "tile_matrix.glsl"
#include "softmax_khr.glsl"
