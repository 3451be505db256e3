#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_KHR_shader_subgroup_basic : require
#ifdef EMULATED
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#else
#extension GL_KHR_cooperative_matrix : require
#extension GL_NV_cooperative_matrix2 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#ifdef INT8_SCORES
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#endif
#endif

// Attention on VK_NV_cooperative_matrix2's reductions, conversions and element functions at
// subgroup scope; fp16 tensors. MAT_N = MAT_K: weights are scores converted in registers.

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint WORKGROUP = 32;
layout(constant_id = 5) const uint SUBGROUPS = 1;
layout(constant_id = 6) const uint MAT_M = 16;
layout(constant_id = 7) const uint MAT_N = 16;
layout(constant_id = 8) const uint MAT_K = 16;
layout(constant_id = 9) const uint ROW_TILES = 1;
// Of an invocation's elements of a MatrixC, four bits each: the first one of the same row, and how
// far right of the first one it is, or all bits if that is not known (ElementPlaces).
layout(constant_id = 10) const uint ROWS_OF_ELEMENTS = 0x76543210;
layout(constant_id = 11) const uint COLUMNS_OF_ELEMENTS = 0xffffffff;
layout(constant_id = 12) const uint UNROLL = 1;
layout(constant_id = 13) const uint SCORE_K = 16;  // of int8 products, MAT_M × MAT_N × SCORE_K
#define ROW_OF(i) ((i) < 8 ? ROWS_OF_ELEMENTS >> 4 * (i) & 15 : (i))
#define COLUMN_OF(i) (COLUMNS_OF_ELEMENTS >> 4 * (i) & 15)
#ifndef EMULATED
#define FULL_BLOCKS_APART
#endif

const uint LANES = WORKGROUP / SUBGROUPS;
const uint BR = SUBGROUPS * ROW_TILES * MAT_M;
#define S_TILE (MAT_M * MAT_N)  // words of shared memory a subgroup
#define Vector uvec4

#include "attention.glsl"
#include "common/half_vectors.glsl"
#include "common/matrices.glsl"
#include "tile_matrix.glsl"
#include "softmax_nv2.glsl"
