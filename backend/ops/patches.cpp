#include "backend/ops/patches.h"

#include "backend/error.h"
#include "backend/ops/permute.h"

namespace fovea {

Tensor patchify(vk::Stream& stream, const Tensor& x, int p) {
    require(x.rank() == 4, "[patchify] (b, h, w, c) expected, found {}", to_string(x.shape()));
    const int64_t b = x.dim(0), h = x.dim(1), w = x.dim(2), c = x.dim(3);
    require(p >= 1 && h % p == 0 && w % p == 0,
            "[patchify] height and width in multiples of {} expected, found {}", p,
            to_string(x.shape()));
    return permute(stream, x.reshape({b, h / p, p, w / p, p, c}), {0, 1, 3, 5, 2, 4})
        .reshape({b, h / p * (w / p), c * p * p});
}

Tensor unpatchify(vk::Stream& stream, const Tensor& x, int64_t h, int64_t w, int p) {
    require(p >= 1 && h % p == 0 && w % p == 0,
            "[unpatchify] height and width in multiples of {} expected, found {} and {}", p, h, w);
    require(x.rank() == 3 && x.dim(1) == h / p * (w / p) && x.dim(2) % (p * p) == 0,
            "[unpatchify] (b, {}, a multiple of {}) expected, found {}", h / p * (w / p), p * p,
            to_string(x.shape()));
    const int64_t b = x.dim(0), c = x.dim(2) / (p * p);
    return permute(stream, x.reshape({b, h / p, w / p, c, p, p}), {0, 1, 4, 2, 5, 3})
        .reshape({b, h, w, c});
}

}  // namespace fovea
