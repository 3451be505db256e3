// Linear numbers of a dispatch folded by groups_for() of backend/ops/dispatch.h. The workgroup's size
// is specialisation constant 0; it must be declared before gl_WorkGroupSize is used, else that is 1.

#ifndef FOVEA_INDEX_GLSL
#define FOVEA_INDEX_GLSL

layout(local_size_x_id = 0) in;

uint linear_group() {
    return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
}

uint linear_invocation() {
    return linear_group() * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
}

#endif
