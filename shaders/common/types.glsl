// Storage type of tensors: fp16 with -DSTORAGE_F16, else fp32. Arithmetic is always fp32. Include
// this first: extensions must precede everything else.
//
//   layout(set = 0, binding = 0) readonly buffer X { Stored x[]; };
//   float a = load(x[i]);
//   y[i] = store(a);

#ifndef FOVEA_TYPES_GLSL
#define FOVEA_TYPES_GLSL

#ifdef STORAGE_F16
#extension GL_EXT_shader_16bit_storage : require
#define Stored float16_t
#define Stored2 f16vec2
#define Stored4 f16vec4
#else
#define Stored float
#define Stored2 vec2
#define Stored4 vec4
#endif

#define load(value) float(value)
#define load2(value) vec2(value)
#define load4(value) vec4(value)
#define store(value) Stored(value)
#define store2(value) Stored2(value)
#define store4(value) Stored4(value)

#endif
