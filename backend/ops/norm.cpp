#include "backend/ops/norm.h"

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/params.h"

namespace fovea {
namespace {

Tensor norm(vk::Stream& stream, const Tensor& x, const NormOptions& o, bool rms, const char* op) {
    const uint32_t count = count_of(op, x);
    require(x.rank() >= 1, "[{}] at least one axis expected", op);
    const int64_t n = x.dim(-1);
    const int64_t rows = count / n;
    require_like(op, "weight", o.weight, {n}, x.dtype());
    require_like(op, "bias", o.bias, {n}, x.dtype());
    const int64_t together = x.is_dense() ? 1 : x.run() / n;
    int64_t batch = 1;
    for (const Tensor& modulation : {o.shift, o.scale}) {
        if (!modulation) continue;
        batch = modulation.dim(0);
        require(rows % batch == 0, "[{}] {} rows cannot be shared by {} rows of shift and scale",
                op, rows, batch);
    }
    require_like(op, "shift", o.shift, {batch, n}, x.dtype());
    require_like(op, "scale", o.scale, {batch, n}, x.dtype());

    Tensor y = empty(stream.device(), x.shape(), x.dtype());
    auto plan = row_plan(stream, static_cast<uint64_t>(rows), static_cast<uint64_t>(n));
    for (const bool constant : {rms, bool(o.weight), bool(o.bias), bool(o.shift), bool(o.scale)})
        plan.constants.push_back(constant);
    const auto& shader = by_dtype(op, x.dtype(), shader::norm_f32, shader::norm_f16);
    const shader::NormParams params{.rows = static_cast<uint32_t>(rows),
                                    .n = static_cast<uint32_t>(n),
                                    .rows_per_batch = static_cast<uint32_t>(rows / batch),
                                    .eps = o.eps,
                                    .together = static_cast<uint32_t>(together),
                                    .pitch = static_cast<uint32_t>(x.pitch(together * n))};
    stream.dispatch(
        stream.device().program(shader, plan.constants),
        {write(y), read_view(x), read(o.weight), read(o.bias), read(o.shift), read(o.scale)},
        params, plan.groups, op);
    return y;
}

}  // namespace

Tensor layer_norm(vk::Stream& stream, const Tensor& x, const NormOptions& options) {
    return norm(stream, x, options, false, "layer_norm");
}

Tensor rms_norm(vk::Stream& stream, const Tensor& x, const NormOptions& options) {
    return norm(stream, x, options, true, "rms_norm");
}

}  // namespace fovea
