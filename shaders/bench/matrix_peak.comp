#version 460
// Matrix products of fp16 with fp32 sums on registers alone: the most that an attention or gemm
// kernel can reach on the device's matrix units by way of Vulkan. Operands differ by lane, because
// units that multiply constants draw less power and clock higher than in real work.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_EXT_shader_16bit_storage : require
#include "common/index.glsl"

layout(constant_id = 1) const uint MAT_M = 16;
layout(constant_id = 2) const uint MAT_N = 16;
layout(constant_id = 3) const uint MAT_K = 16;
const uint ROWS = 2, COLUMNS = 4;

layout(set = 0, binding = 0) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push { uint rounds; };

float16_t operand(uint number) {
    const uint hash = (gl_LocalInvocationID.x * 64 + number) * 2654435761u;
    return float16_t(float(hash >> 16) / 65536.0 - 0.375);
}

void main() {
    coopmat<float16_t, gl_ScopeSubgroup, MAT_M, MAT_K, gl_MatrixUseA> a[ROWS];
    coopmat<float16_t, gl_ScopeSubgroup, MAT_K, MAT_N, gl_MatrixUseB> b[COLUMNS];
    coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator> c[ROWS * COLUMNS];
    [[unroll]] for (uint i = 0; i < ROWS; ++i)
        for (uint e = 0; e < a[i].length(); ++e) a[i][e] = operand(e + 8 * i);
    [[unroll]] for (uint j = 0; j < COLUMNS; ++j)
        for (uint e = 0; e < b[j].length(); ++e) b[j][e] = operand(e + 8 * j + 16);
    [[unroll]] for (uint i = 0; i < ROWS * COLUMNS; ++i)
        c[i] = coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator>(float(i));
    for (uint round = 0; round < rounds; ++round)
        [[unroll]] for (uint i = 0; i < ROWS; ++i)
            [[unroll]] for (uint j = 0; j < COLUMNS; ++j)
                c[i * COLUMNS + j] = coopMatMulAdd(a[i], b[j], c[i * COLUMNS + j]);
    float sum = 0;
    [[unroll]] for (uint i = 0; i < ROWS * COLUMNS; ++i)
        for (uint e = 0; e < c[i].length(); ++e) sum += c[i][e];
    y[linear_invocation()] = sum;
}
