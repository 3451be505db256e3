#include "backend/ops/conv2d.h"

#include "backend/error.h"
#include "backend/ops/dispatch.h"
#include "backend/ops/matrix_tile.h"
#include "backend/ops/tile.h"
#include "shaders.h"
#include "shaders/conv2d/conv2d_params.h"

namespace fovea {
Tensor conv2d(vk::Stream& stream, const Tensor& x, const Tensor& w, const Conv2dOptions& options) {
    require(x && w, "[conv2d] expected x and w, found an absent tensor");
    require(x.dtype() == DType::f32 || x.dtype() == DType::f16,
            "[conv2d] expected x of f32 or f16, found {}", name_of(x.dtype()));
    require(w.dtype() == x.dtype(), "[conv2d] expected w of {} as x, found {}", name_of(x.dtype()),
            name_of(w.dtype()));
    require(x.rank() == 4 && w.rank() == 4 && w.dim(2) == x.dim(3),
            "[conv2d] expected x (b, h, w, ci) and w (kh, kw, ci, co), found {} and {}",
            to_string(x.shape()), to_string(w.shape()));
    const int64_t kernel = w.dim(0), stride = options.stride;
    require(w.dim(1) == kernel && (kernel == 1 || kernel == 3),
            "[conv2d] expected kh = kw = 1 or 3, found w {}", to_string(w.shape()));
    require(stride >= 1, "[conv2d] expected a stride of at least 1, found {}", stride);
    const Shape y_shape{x.dim(0), (x.dim(1) + stride - 1) / stride,
                        (x.dim(2) + stride - 1) / stride, w.dim(3)};
    require_like("conv2d", "bias", options.bias, {w.dim(3)}, x.dtype());
    require_like("conv2d", "residual", options.residual, y_shape, x.dtype());

    vk::Device& device = stream.device();
    const int64_t m = y_shape[0] * y_shape[1] * y_shape[2], n = w.dim(3), k = w.dim(2);
    const Tensor y = empty(device, y_shape, x.dtype());
    if (product_path(device.info(), x.dtype(), k, options.path) != AttentionPath::scalar) {
        dispatch_matrix_product(stream,
                                {.op = "conv2d",
                                 .m = m,
                                 .n = n,
                                 .k = kernel * kernel * k,
                                 .x = x,
                                 .w = w,
                                 .y = y,
                                 .bias = options.bias,
                                 .residual = options.residual,
                                 .gate = {},
                                 .activation = options.activation,
                                 .convolution = MatrixProduct::Convolution{.channels = k,
                                                                           .height = x.dim(1),
                                                                           .width = x.dim(2),
                                                                           .rows = y_shape[1],
                                                                           .columns = y_shape[2],
                                                                           .stride = stride,
                                                                           .kernel = kernel}});
        return y;
    }
    const Tile tile = choose_tile(device.info(), m, n, k);
    const bool half = x.dtype() == DType::f16;
    const vk::Shader& shader =
        tile.software ? (half ? shader::conv2d_software_f16 : shader::conv2d_software_f32)
                      : (half ? shader::conv2d_f16 : shader::conv2d_f32);
    const vk::Program& program =
        device.program(shader, tile.constants({.activation = options.activation,
                                               .bias = bool(options.bias),
                                               .residual = bool(options.residual),
                                               .gate = false}));
    const Conv2dParams params{.m = static_cast<uint32_t>(m),
                              .n = static_cast<uint32_t>(n),
                              .k = static_cast<uint32_t>(k),
                              .height = static_cast<uint32_t>(x.dim(1)),
                              .width = static_cast<uint32_t>(x.dim(2)),
                              .rows = static_cast<uint32_t>(y_shape[1]),
                              .columns = static_cast<uint32_t>(y_shape[2]),
                              .stride = static_cast<uint32_t>(stride),
                              .kernel = static_cast<uint32_t>(kernel)};
    stream.dispatch(program,
                    {read(x), read(w), write(y), read(options.bias), read(options.residual)},
                    params, tile.groups(device.info(), m, n), "conv2d");
    return y;
}

}  // namespace fovea
