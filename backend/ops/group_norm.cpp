#include "backend/ops/group_norm.h"

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/params.h"

namespace fovea {

Tensor group_norm(vk::Stream& stream, const Tensor& x, const GroupNormOptions& o) {
    const uint32_t count = count_of("group_norm", x);
    require(x.rank() == 4, "[group_norm] (b, h, w, c) expected, found {}", to_string(x.shape()));
    const int64_t channels = x.dim(3), pixels = x.dim(1) * x.dim(2);
    require(o.groups >= 1 && channels % o.groups == 0,
            "[group_norm] {} channels cannot be {} groups", channels, o.groups);
    require_like("group_norm", "weight", o.weight, {channels}, x.dtype());
    require_like("group_norm", "bias", o.bias, {channels}, x.dtype());

    // At most 512 chunks keep the joining stage short, which every channel does alone.
    const int64_t chunk_pixels = std::max<int64_t>(16, (pixels + 511) / 512);
    const int64_t chunks = (pixels + chunk_pixels - 1) / chunk_pixels;
    const Tensor partial = empty(stream.device(), {x.dim(0), chunks, o.groups, 2}, DType::f32);
    const Tensor moments = empty(stream.device(), {x.dim(0), channels, 2}, DType::f32);
    Tensor y = empty(stream.device(), x.shape(), x.dtype());
    uint32_t run = is_cpu(stream) ? 8 : 1;
    while (channels % run != 0) run /= 2;

    shader::GroupNormParams params{.batch = static_cast<uint32_t>(x.dim(0)),
                                   .pixels = static_cast<uint32_t>(pixels),
                                   .channels = static_cast<uint32_t>(channels),
                                   .groups = static_cast<uint32_t>(o.groups),
                                   .chunks = static_cast<uint32_t>(chunks),
                                   .chunk_pixels = static_cast<uint32_t>(chunk_pixels),
                                   .eps = o.eps};
    const auto& shader =
        by_dtype("group_norm", x.dtype(), shader::group_norm_f32, shader::group_norm_f16);
    const auto stage = [&](std::vector<uint32_t> constants, uint32_t results,
                           std::initializer_list<vk::Access> accesses) {
        params.count = results;
        const uint32_t workgroup = constants[0];
        stream.dispatch(stream.device().program(shader, constants), accesses, params,
                        groups_for(results, workgroup), "group_norm");
    };
    constexpr uint32_t kFew = 32;  // few long invocations: spread them over the cores
    stage({kFew, 0}, params.batch * params.chunks * params.groups,
          {{}, read(x), {}, {}, write(partial), {}});
    stage({kFew, 1, bool(o.weight), bool(o.bias)}, params.batch * params.channels,
          {{}, {}, read(o.weight), read(o.bias), read(partial), write(moments)});
    stage({kElementGroup, 2, 0, 0, static_cast<uint32_t>(o.activation), run}, count / run,
          {write(y), read(x), {}, {}, {}, read(moments)});
    return y;
}

}  // namespace fovea
