#version 460
// Group norm of (batch, pixels, channels) in three dispatches: moments of chunks of pixels, joined
// to a scale and a shift a channel, then applied with an activation. Moments of a chunk are taken
// about its first element and joined by Chan's formula, so a large mean does not cancel. No
// atomics: the same bits every run.
#extension GL_GOOGLE_include_directive : require
#include "common/types.glsl"
#include "common/activation.glsl"
#include "common/index.glsl"
#include "params.h"

layout(constant_id = 1) const uint STAGE = 0;
layout(constant_id = 2) const bool HAS_WEIGHT = false;  // stage 1
layout(constant_id = 3) const bool HAS_BIAS = false;
layout(constant_id = 4) const uint ACTIVATION = 0;  // stage 2
layout(constant_id = 5) const uint RUN = 1;         // channels an invocation applies

layout(set = 0, binding = 0) writeonly buffer Y { Stored y[]; };
layout(set = 0, binding = 1) readonly buffer X { Stored x[]; };
layout(set = 0, binding = 2) readonly buffer Weight { Stored weight[]; };
layout(set = 0, binding = 3) readonly buffer Bias { Stored bias[]; };
layout(set = 0, binding = 4) buffer Partial { vec2 partial[]; };  // (batch, chunks, groups)
layout(set = 0, binding = 5) buffer Moments { vec2 moments[]; };  // (batch, channels)
layout(push_constant) uniform Push { GroupNormParams p; };

void chunk_moments(uint i) {  // i in (batch, chunks, groups)
    const uint width = p.channels / p.groups;
    const uint group = i % p.groups;
    const uint chunk = i / p.groups % p.chunks;
    const uint batch = i / (p.groups * p.chunks);
    const uint first = chunk * p.chunk_pixels;
    const uint last = min(first + p.chunk_pixels, p.pixels);

    uint from = (batch * p.pixels + first) * p.channels + group * width;
    const float center = load(x[from]);
    float sum = 0, squares = 0;
    for (uint pixel = first; pixel < last; ++pixel, from += p.channels)
        for (uint k = 0; k < width; ++k) {
            const float d = load(x[from + k]) - center;
            sum += d;
            squares += d * d;
        }
    const float n = float((last - first) * width);
    partial[i] = vec2(center + sum / n, max(squares - sum * sum / n, 0.0));
}

void join(uint i) {  // i in (batch, channels)
    const uint batch = i / p.channels, channel = i - batch * p.channels;
    const uint width = p.channels / p.groups;
    const uint base = batch * p.chunks * p.groups + channel / width;
    const float last_pixels = float(p.pixels - (p.chunks - 1) * p.chunk_pixels);

    float mean = 0;
    for (uint chunk = 0; chunk < p.chunks; ++chunk) {
        const float n = chunk + 1 < p.chunks ? float(p.chunk_pixels) : last_pixels;
        mean += partial[base + chunk * p.groups].x * (n / float(p.pixels));
    }
    float squares = 0;
    for (uint chunk = 0; chunk < p.chunks; ++chunk) {
        const float n = chunk + 1 < p.chunks ? float(p.chunk_pixels) : last_pixels;
        const vec2 part = partial[base + chunk * p.groups];
        squares += part.y + n * float(width) * (part.x - mean) * (part.x - mean);
    }
    float scale = inversesqrt(squares / (float(p.pixels) * float(width)) + p.eps);
    if (HAS_WEIGHT) scale *= load(weight[channel]);
    float shift = -mean * scale;
    if (HAS_BIAS) shift += load(bias[channel]);
    moments[i] = vec2(scale, shift);
}

void apply(uint run) {
    const uint first = run * RUN;
    const uint pixel = first / p.channels, channel = first - pixel * p.channels;
    const uint batch = p.batch == 1 ? 0 : pixel / p.pixels;
    for (uint k = 0; k < RUN; ++k) {
        const vec2 m = moments[batch * p.channels + channel + k];
        y[first + k] = store(activate(load(x[first + k]) * m.x + m.y, ACTIVATION));
    }
}

void main() {
    const uint i = linear_invocation();
    if (i >= p.count) return;
    if (STAGE == 0)
        chunk_moments(i);
    else if (STAGE == 1)
        join(i);
    else
        apply(i);
}
