#include "backend/ops/softmax.h"

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/params.h"

namespace fovea {

Tensor softmax(vk::Stream& stream, const Tensor& x) {
    const uint32_t count = count_of("softmax", x);
    require(x.rank() >= 1, "[softmax] at least one axis expected");
    const auto n = static_cast<uint32_t>(x.dim(-1));
    const shader::SoftmaxParams params{.rows = count / n, .n = n};
    Tensor y = empty(stream.device(), x.shape(), x.dtype());
    const auto plan = row_plan(stream, params.rows, n);
    const auto& shader = by_dtype("softmax", x.dtype(), shader::softmax_f32, shader::softmax_f16);
    stream.dispatch(stream.device().program(shader, plan.constants), {write(y), read(x)}, params,
                    plan.groups, "softmax");
    return y;
}

}  // namespace fovea
