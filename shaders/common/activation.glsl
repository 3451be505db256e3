// Values of fovea::Activation, backend/ops/activation.h.

#ifndef FOVEA_ACTIVATION_GLSL
#define FOVEA_ACTIVATION_GLSL

const uint ACTIVATION_NONE = 0;
const uint ACTIVATION_RELU = 1;
const uint ACTIVATION_GELU = 2;
const uint ACTIVATION_SILU = 3;
const uint ACTIVATION_SIGMOID = 4;
const uint ACTIVATION_ELU_PLUS_ONE = 5;
const uint ACTIVATION_EXP = 6;

// One branch a vector, which all lanes take alike.
vec4 activate(vec4 x, uint activation) {
    if (activation == ACTIVATION_RELU) return max(x, vec4(0));
    // tanh(u) = 1 - 2 / (exp(2u) + 1): neither end overflows into NaN.
    if (activation == ACTIVATION_GELU) {
        const vec4 u = 0.7978845608 * (x + 0.044715 * x * x * x);
        return x - x / (exp(2.0 * u) + 1.0);
    }
    if (activation == ACTIVATION_SILU) return x / (1.0 + exp(-x));
    if (activation == ACTIVATION_SIGMOID) return 1.0 / (1.0 + exp(-x));
    if (activation == ACTIVATION_ELU_PLUS_ONE) return exp(min(x, vec4(0))) + max(x, vec4(0));
    if (activation == ACTIVATION_EXP) return exp(x);
    return x;
}

float activate(float x, uint activation) { return activate(vec4(x), activation).x; }

#endif
