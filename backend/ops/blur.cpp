#include "backend/ops/blur.h"

#include <cmath>

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/params.h"

namespace fovea {
namespace {

// x as (outer, n, inner), inner as tokens · heads · head_dim
Tensor along(vk::Stream& stream, const Tensor& x, int64_t n, int64_t inner,
             const BlurOptions& options) {
    const Tensor y = empty(stream.device(), x.shape(), x.dtype());
    const shader::BlurParams params{
        .count = count_of("blur", x),
        .n = static_cast<uint32_t>(n),
        .inner = static_cast<uint32_t>(inner),
        .heads = static_cast<uint32_t>(x.dim(2)),
        .head_dim = static_cast<uint32_t>(x.dim(3)),
        .falloff = std::isinf(options.sigma) ? 0 : 0.5f / (options.sigma * options.sigma)};
    const auto& shader = by_dtype("blur", x.dtype(), shader::blur_f32, shader::blur_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup}),
                    {write(y), read(x), read(options.heads)}, params,
                    groups_for(params.count, kElementGroup), "blur");
    return y;
}

}  // namespace

Tensor blur_tokens(vk::Stream& stream, const Tensor& x, const BlurOptions& o) {
    count_of("blur", x);
    const auto [frames, rows, columns] = o.grid;
    require(x.rank() == 4 && x.dim(1) == frames * rows * columns,
            "[blur] (batch, {}, heads, head_dim) expected for a grid of {}x{}x{}, found {}",
            frames * rows * columns, frames, rows, columns, to_string(x.shape()));
    require(o.sigma > 0, "[blur] a sigma above 0 expected, found {}", o.sigma);
    require(static_cast<bool>(o.heads), "[blur] heads are absent");
    require_like("blur", "heads", o.heads, {x.dim(2)}, DType::f32);
    const int64_t token = x.dim(2) * x.dim(3);
    return along(stream, along(stream, x, columns, token, o), rows, columns * token, o);
}

}  // namespace fovea
