// Loads of tile.glsl on llvmpipe, which turns a storage-buffer load into a branch for each lane
// and a bounds check for each component, whether or not all lanes read one address. So each lane
// loads another row of x, to be broadcast from registers, and two fp16 elements are one component.
// LANES is the subgroup size. Measured in docs/notes-software-vulkan.md.

#extension GL_KHR_shader_subgroup_ballot : require

const uint PARTS = (ROWS + LANES - 1) / LANES;

uint part_of(uint r) { return r / LANES; }
uint row_of_part(uint p) { return p * LANES + gl_SubgroupInvocationID; }
float x_of(float a, uint r) { return subgroupBroadcast(a, r % LANES); }

#ifdef STORAGE_F16
layout(std430, binding = 0) readonly restrict buffer X4 { uvec2 x4[]; };
layout(std430, binding = 1) readonly restrict buffer W4 { uvec2 w4[]; };
vec4 unpack(uvec2 q) { return vec4(unpackHalf2x16(q.x), unpackHalf2x16(q.y)); }
#else
layout(std430, binding = 0) readonly restrict buffer X4 { vec4 x4[]; };
layout(std430, binding = 1) readonly restrict buffer W4 { vec4 w4[]; };
vec4 unpack(vec4 q) { return q; }
#endif

vec4 load_x(uint element) {
    return STEP == 4 ? unpack(x4[element / 4]) : vec4(load(x[element]), 0, 0, 0);
}

vec4 load_w(uint element) {
    return WIDTH == 4 ? unpack(w4[element / 4]) : vec4(load(w[element]), 0, 0, 0);
}
