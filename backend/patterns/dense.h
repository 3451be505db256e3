#pragma once

#include <limits>

#include "backend/patterns/pattern.h"

namespace fovea {

/// Every query sees every key; cross attention too.
struct Dense {
    bool keeps(uint32_t, uint32_t) const { return true; }
    Grid grid() const { return {}; }
    std::string key() const { return "dense"; }
    void runs(uint32_t, std::vector<TokenRange>& out) const {
        out.push_back({0, std::numeric_limits<uint32_t>::max()});
    }
};

inline Dense dense() {
    return {};
}

}  // namespace fovea
