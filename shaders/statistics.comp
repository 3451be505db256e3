#version 460
// Every invocation summarises its share of the elements in one record; the host joins the records.
// Moments are taken about the first element, so that a constant tensor has variance 0 exactly. NaN
// and infinity are told by their bits: compilers may assume that isnan() is false.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/index.glsl"
#include "params.h"

struct Record {
    float least, most, sum, squares;  // of the finite elements, sums about the center
    uint nans, infinities;
    float center;
};

layout(set = 0, binding = 0) writeonly buffer Records { Record records[]; };
layout(set = 0, binding = 1) readonly buffer X { Stored x[]; };
layout(push_constant) uniform Push { ReduceParams p; };

const uint INFINITY = 0x7f800000;

uint magnitude(float v) {
    return floatBitsToUint(v) & 0x7fffffff;
}

void main() {
    const uint me = linear_invocation();
    if (me >= p.records) return;
    const float first = load(x[0]);
    Record r = Record(uintBitsToFloat(INFINITY), -uintBitsToFloat(INFINITY), 0, 0, 0, 0,
                      magnitude(first) < INFINITY ? first : 0.0);
    for (uint i = me; i < p.count; i += p.records) {
        const float v = load(x[i]);
        const uint bits = magnitude(v);
        if (bits < INFINITY) {
            r.least = min(r.least, v);
            r.most = max(r.most, v);
            r.sum += v - r.center;
            r.squares += (v - r.center) * (v - r.center);
        } else if (bits == INFINITY) {
            ++r.infinities;
        } else {
            ++r.nans;
        }
    }
    records[me] = r;
}
