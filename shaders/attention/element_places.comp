#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require

// Which place in a MatrixC each element has, by invocation: y[element · lanes + invocation] is
// row · MAT_N + column. No extension says it, a matrix that is loaded with these numbers does.

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LANES = 32;
layout(constant_id = 1) const uint MAT_M = 16;
layout(constant_id = 2) const uint MAT_N = 16;
layout(constant_id = 3) const uint MAT_K = 16;

#include "common/matrices.glsl"

layout(set = 0, binding = 0) writeonly buffer Y { float y[]; };
shared float places[MAT_M * MAT_N];

void main() {
    for (uint at = gl_LocalInvocationIndex; at < MAT_M * MAT_N; at += LANES)
        places[at] = float(at);
    barrier();
    MatrixC c;
    LOAD_C(c, places, 0, MAT_N);
    for (uint i = 0; i < SIZE(c); ++i) y[i * LANES + gl_LocalInvocationIndex] = ELEMENT(c, i);
}
