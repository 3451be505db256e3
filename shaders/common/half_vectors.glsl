// Eight fp16 elements as they lie in memory.

#ifndef FOVEA_HALF_VECTORS_GLSL
#define FOVEA_HALF_VECTORS_GLSL

void unpack(uvec4 vector, out vec4 a, out vec4 b) {
    a = vec4(unpackHalf2x16(vector.x), unpackHalf2x16(vector.y));
    b = vec4(unpackHalf2x16(vector.z), unpackHalf2x16(vector.w));
}

// Which words hold something that is not finite, in their low and their high half.
void not_finite(uvec4 vector, out bvec4 low, out bvec4 high) {
    low = equal(vector & 0x7c00, uvec4(0x7c00));
    high = equal(vector & 0x7c000000, uvec4(0x7c000000));
}

// The rest, with 0 in their place.
uvec4 finite_part(uvec4 vector, bvec4 low, bvec4 high) {
    return vector & mix(uvec4(0xffff), uvec4(0), low) |
           vector & mix(uvec4(0xffff0000), uvec4(0), high);
}

#endif
