// Ops over rows of n elements: the plan of row_plan(), backend/ops/dispatch.h. On GPUs a workgroup
// shares a row; on CPUs, where a gather costs as much as a load and a barrier costs more than a
// row, every invocation takes its own.
//
//   const uint row = this_row();
//   for (uint j = first_column(); j < n; j += column_step()) sum += …;
//   sum = row_sum(sum);

#ifndef FOVEA_ROWS_GLSL
#define FOVEA_ROWS_GLSL

#extension GL_KHR_shader_subgroup_arithmetic : require

#include "common/index.glsl"

layout(constant_id = 1) const uint ROW_PER_GROUP = 1;

// Subgroups have at least 4 invocations wherever a row is shared: checked by the host.
shared float row_partial[gl_WorkGroupSize.x / 4];

uint this_row() {
    return ROW_PER_GROUP == 1 ? linear_group() : linear_invocation();
}

uint first_column() {
    return ROW_PER_GROUP == 1 ? gl_LocalInvocationID.x : 0;
}

uint column_step() {
    return ROW_PER_GROUP == 1 ? gl_WorkGroupSize.x : 1;
}

// Every invocation of the workgroup calls these, and all get the same bits: the partials are added
// in one order.
float row_sum(float x) {
    if (ROW_PER_GROUP == 0) return x;
    x = subgroupAdd(x);
    barrier();  // partials of the reduction before have been read
    if (subgroupElect()) row_partial[gl_SubgroupID] = x;
    barrier();
    x = row_partial[0];
    for (uint i = 1; i < gl_NumSubgroups; ++i) x += row_partial[i];
    return x;
}

float row_max(float x) {
    if (ROW_PER_GROUP == 0) return x;
    x = subgroupMax(x);
    barrier();
    if (subgroupElect()) row_partial[gl_SubgroupID] = x;
    barrier();
    x = row_partial[0];
    for (uint i = 1; i < gl_NumSubgroups; ++i) x = max(x, row_partial[i]);
    return x;
}

#endif
