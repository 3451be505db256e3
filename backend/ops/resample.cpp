#include "backend/ops/resample.h"

#include "backend/error.h"
#include "backend/ops/permute.h"

namespace fovea {

Tensor upsample_nearest(vk::Stream& stream, const Tensor& x, int factor) {
    require(x.rank() == 4, "[upsample_nearest] (b, h, w, c) expected, found {}",
            to_string(x.shape()));
    require(factor >= 1, "[upsample_nearest] factor of at least 1 expected, found {}", factor);
    const int64_t b = x.dim(0), h = x.dim(1), w = x.dim(2), c = x.dim(3);
    return strided_copy(stream, x, {b, h, factor, w, factor, c}, {h * w * c, w * c, 0, c, 0, 1},
                        "upsample_nearest")
        .reshape({b, h * factor, w * factor, c});
}

}  // namespace fovea
