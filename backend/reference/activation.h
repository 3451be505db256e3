#pragma once

#include <cmath>

#include "backend/ops/activation.h"

namespace fovea::reference {

inline double activate(double x, Activation activation) {
    switch (activation) {
        case Activation::none:
            return x;
        case Activation::relu:
            return x > 0 ? x : 0;
        case Activation::gelu:
            return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
        case Activation::silu:
            return x / (1 + std::exp(-x));
        case Activation::sigmoid:
            return 1 / (1 + std::exp(-x));
        case Activation::elu_plus_one:
            return x > 0 ? x + 1 : std::exp(x);
        case Activation::exp:
            return std::exp(x);
    }
    return x;
}

}  // namespace fovea::reference
