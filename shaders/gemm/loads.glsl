// Loads of tile.glsl on a GPU: every lane reads every row of x, at one address for all lanes.

layout(std430, binding = 0) readonly restrict buffer X4 { Stored4 x4[]; };
layout(std430, binding = 1) readonly restrict buffer W4 { Stored4 w4[]; };

const uint PARTS = ROWS;

uint part_of(uint r) { return r; }
uint row_of_part(uint p) { return p; }
float x_of(float a, uint r) { return a; }

vec4 load_x(uint element) {
    return STEP == 4 ? load4(x4[element / 4]) : vec4(load(x[element]), 0, 0, 0);
}

vec4 load_w(uint element) {
    return WIDTH == 4 ? load4(w4[element / 4]) : vec4(load(w[element]), 0, 0, 0);
}
