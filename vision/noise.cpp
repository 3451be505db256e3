#include "vision/noise.h"

#include "backend/reference/noise.h"

namespace fovea {

std::vector<float> normal_noise(uint64_t seed, uint32_t stream, size_t count) {
    return reference::noise(count, seed, stream);
}

}  // namespace fovea
