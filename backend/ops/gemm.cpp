#include "backend/ops/gemm.h"

#include "backend/error.h"
#include "backend/ops/dispatch.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/matrix_tile.h"
#include "backend/ops/thin.h"
#include "backend/ops/tile.h"
#include "shaders.h"
#include "shaders/gemm/gemm_params.h"

namespace fovea {

AttentionPath gemm_path(const vk::DeviceInfo& device, DType dtype, int64_t m, int64_t n, int64_t k,
                        AttentionPath wanted) {
    const bool open = wanted_path(wanted) == AttentionPath::automatic;
    return open && takes_thin(device, dtype, m, n, k) ? AttentionPath::scalar
                                                      : product_path(device, dtype, k, wanted);
}

Tensor gemm(vk::Stream& stream, const Tensor& x, const Tensor& w, const GemmOptions& options) {
    require(x && w, "[gemm] expected x and w, found an absent tensor");
    require(x.dtype() == DType::f32 || x.dtype() == DType::f16,
            "[gemm] expected x of f32 or f16, found {}", name_of(x.dtype()));
    require(w.dtype() == x.dtype(), "[gemm] expected w of {} as x, found {}", name_of(x.dtype()),
            name_of(w.dtype()));
    require(x.rank() >= 1 && w.rank() == 2 && w.dim(0) == x.dim(-1),
            "[gemm] expected x (…, k) and w (k, n), found {} and {}", to_string(x.shape()),
            to_string(w.shape()));
    const int64_t k = w.dim(0), n = w.dim(1), m = x.numel() / k;
    Shape y_shape = x.shape();
    y_shape.back() = n;
    require_like("gemm", "bias", options.bias, {n}, x.dtype());
    require_like("gemm", "residual", options.residual, y_shape, x.dtype());
    const int64_t batch = options.gate ? options.gate.dim(0) : 1;
    require_like("gemm", "gate", options.gate, {batch, n}, x.dtype());
    require(m % batch == 0, "[gemm] expected rows of x a multiple of the gate's {}, found {}",
            batch, m);

    vk::Device& device = stream.device();
    const Tensor y = empty(device, y_shape, x.dtype());
    const AttentionPath path = gemm_path(device.info(), x.dtype(), m, n, k, options.path);
    if (path == AttentionPath::scalar && takes_thin(device.info(), x.dtype(), m, n, k)) {
        dispatch_thin(stream, x, w, y, options);
        return y;
    }
    const Tensor in =
        options.x_activation == Activation::none ? x : activate(stream, x, options.x_activation);
    if (path != AttentionPath::scalar) {
        dispatch_matrix_product(stream, {.op = "gemm",
                                         .m = m,
                                         .n = n,
                                         .k = k,
                                         .x = in,
                                         .w = w,
                                         .y = y,
                                         .bias = options.bias,
                                         .residual = options.residual,
                                         .gate = options.gate,
                                         .activation = options.activation,
                                         .convolution = {}});
        return y;
    }
    const Tile tile = choose_tile(device.info(), m, n, k);
    const bool half = x.dtype() == DType::f16;
    const vk::Shader& shader = tile.software
                                   ? (half ? shader::gemm_software_f16 : shader::gemm_software_f32)
                                   : (half ? shader::gemm_f16 : shader::gemm_f32);
    const vk::Program& program =
        device.program(shader, tile.constants({.activation = options.activation,
                                               .bias = bool(options.bias),
                                               .residual = bool(options.residual),
                                               .gate = bool(options.gate)}));
    const GemmParams params{.m = static_cast<uint32_t>(m),
                            .n = static_cast<uint32_t>(n),
                            .k = static_cast<uint32_t>(k),
                            .gate_rows = static_cast<uint32_t>(m / batch)};
    stream.dispatch(program,
                    {read(in), read(w), write(y), read(options.bias), read(options.residual),
                     read(options.gate)},
                    params, tile.groups(device.info(), m, n), "gemm");
    return y;
}

}  // namespace fovea
