#version 460
#extension GL_GOOGLE_include_directive : require
#include "gemm/matrix_extensions.glsl"
// NHWC convolution in fp16 as an implicit gemm: rows are output pixels, k runs over taps and input
// channels; input patches are gathered on their way to shared memory. y = activation(x * w + bias +
// residual); see gemm/tile_matrix.glsl.

#define X_HAS_HOLES  // the padding

#include "gemm/tile_matrix.glsl"

int x_base[X_LOADS];   // where each row's channels lie under the first tap, before x in the padding
uint inside[X_LOADS];  // which taps are not in the padding, a bit each
uvec2 tap;             // where the walk is: a tap and a vector of its channels
int tap_offset;        // from x_base to there

void locate_rows() {
    const int reach = int(params.kernel) / 2;
    UNROLLED for (uint i = 0; i < X_LOADS; ++i) {
        const uint row = min(first_row + x_row(i), params.m - 1);
        const uint line = row / params.columns;  // of all images
        const uint image = line / params.rows;
        const ivec2 at = ivec2(row - line * params.columns, line - image * params.rows) *
                             int(params.stride) - reach;
        x_base[i] = ((int(image * params.height) + at.y) * int(params.width) + at.x) *
                    int(params.channels / 8);
        inside[i] = 0;
        for (int t = 0; t < 9; ++t) {  // kernels are 1 or 3 wide; taps past the last do no harm
            const uvec2 place = uvec2(at + ivec2(t % 3, t / 3));
            if (place.x < params.width && place.y < params.height) inside[i] |= 1 << t;
        }
    }
}

uvec2 tap_of(uint slab) {
    const uint vector = slab * X_VECTORS + x_vector(), vectors = params.channels / 8;
    return uvec2(vector / vectors, vector % vectors);
}

void place_tap() {
    const int last = int(params.kernel * params.kernel) - 1, t = min(int(tap.x), last);
    tap_offset = (t / 3 * int(params.width) + t % 3) * int(params.channels / 8) + int(tap.y);
}

void start_walk() {
    tap = tap_of(walk);
    place_tap();
}

// A slab on without division: whole taps and the rest of them are the same every time.
void step_walk(uint slabs) {
    const uint vectors = params.channels / 8, taps = X_VECTORS / vectors;
    const uint channel = tap.y + X_VECTORS - taps * vectors;
    const uvec2 next = mix(uvec2(tap.x + taps, channel), uvec2(tap.x + taps + 1, channel - vectors),
                           bvec2(channel >= vectors));
    tap = mix(tap, next, bvec2(slabs != 0));
    place_tap();
}

// Taps past the last, in slabs past the end of k, have no bits.
bool lies_in_x(uint i) { return (inside[i] >> min(tap.x, 31) & 1) != 0; }

uint rows_with_x() {
    uint rows = 0;
    UNROLLED for (uint i = 0; i < X_LOADS; ++i) rows |= (inside[i] >> min(tap.x, 31) & 1) << i;
    return rows;
}

uvec4 load_x(uint i) { return x_data[mix(0, x_base[i] + tap_offset, lies_in_x(i))]; }
