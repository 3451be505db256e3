#pragma once

#include "backend/patterns/pattern.h"

namespace fovea {

/// Every query sees every key; cross attention too.
struct Dense {
    bool keeps(uint32_t, uint32_t) const { return true; }
    Grid grid() const { return {}; }
    std::string key() const { return "dense"; }
    Cover cover(TokenRange, TokenRange) const { return Cover::full; }
};

inline Dense dense() {
    return {};
}

}  // namespace fovea
