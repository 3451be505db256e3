#version 460
#extension GL_NV_cooperative_matrix2 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
layout(local_size_x = 128) in;
layout(binding = 0) buffer B { float16_t x[]; };
float16_t larger(const in float16_t a, const in float16_t b) { return max(a, b); }
void main() {
    coopmat<float16_t, gl_ScopeWorkgroup, 64, 64, gl_MatrixUseAccumulator> a, rows;
    tensorLayoutNV<2> t = createTensorLayoutNV(2);
    t = setTensorLayoutDimensionNV(t, 64, 64);
    coopMatLoadTensorNV(a, x, 0, t);
    coopMatReduceNV(rows, a, gl_CooperativeMatrixReduceRowNV, larger);
    coopMatStoreTensorNV(rows, x, 0, t);
}
