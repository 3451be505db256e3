#include "backend/ops/grid.h"

#include <array>

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/params.h"

namespace fovea {
namespace {

Tensor make_grid(vk::Stream& stream, std::string_view op, const vk::Shader& f32,
                 const vk::Shader& f16, const Tensor& x, shader::GridParams params) {
    count_of(op, x);
    require(x.rank() == 4, "[{}] (b, h, w, c) expected, found {}", op, to_string(x.shape()));
    Tensor y = empty(stream.device(), {x.dim(0), params.rows, params.columns, x.dim(3)}, x.dtype());
    params.count = count_of(op, y) / 4;
    params.c4 = quads(op, x.dim(3));
    params.x_rows = u32(x.dim(1));
    params.x_columns = u32(x.dim(2));
    params.pitch = quads(op, x.pitch(x.dim(3)));
    stream.dispatch(stream.device().program(by_dtype(op, x.dtype(), f32, f16), {kElementGroup}),
                    {write(y), read_view(x)}, params, groups_for(params.count, kElementGroup), op);
    return y;
}

}  // namespace

Tensor crop_grid(vk::Stream& stream, const Tensor& x, int64_t top, int64_t left, int64_t rows,
                 int64_t columns) {
    require(rows > 0 && columns > 0,
            "[crop_grid] a window of at least one token expected, found {}×{}", rows, columns);
    return make_grid(stream, "crop_grid", shader::crop_f32, shader::crop_f16, x,
                     {.rows = u32(rows),
                      .columns = u32(columns),
                      .top = static_cast<int>(top),
                      .left = static_cast<int>(left)});
}

Tensor average_pool(vk::Stream& stream, const Tensor& x, int64_t rows, int64_t columns) {
    require(rows > 0 && columns > 0, "[average_pool] at least one cell expected, found {}×{}", rows,
            columns);
    return make_grid(stream, "average_pool", shader::average_pool_f32, shader::average_pool_f16, x,
                     {.rows = u32(rows), .columns = u32(columns)});
}

Tensor concat(vk::Stream& stream, std::initializer_list<Tensor> inputs) {
    constexpr std::string_view op = "concat";
    require(inputs.size() >= 2 && inputs.size() <= 4, "[{}] two to four tensors expected, found {}",
            op, inputs.size());
    const Tensor& first = *inputs.begin();
    shader::ConcatParams params{};
    std::array<Tensor, 4> bound;
    size_t i = 0;
    for (const Tensor& x : inputs) {
        count_of(op, x);
        require(x.rank() >= 1 && x.dtype() == first.dtype(), "[{}] {} and {} cannot be mixed", op,
                name_of(first.dtype()), name_of(x.dtype()));
        const int64_t rows = x.numel() / x.dim(-1), all = first.numel() / first.dim(-1);
        require(all % rows == 0, "[{}] {} rows cannot repeat to {}", op, rows, all);
        // Rows are whole in a view; how many lie side by side is its run.
        const int64_t together = x.is_dense() ? 1 : x.run() / x.dim(-1);
        params.width += quads(op, x.dim(-1));
        params.ends[i] = params.width;
        params.rows[i] = u32(rows);
        params.together[i] = u32(together);
        params.pitch[i] = quads(op, x.pitch(together * x.dim(-1)));
        bound[i++] = x;
    }
    for (; i < 4; ++i) params.ends[i] = params.width;
    Shape shape = first.shape();
    shape.back() = 4 * int64_t{params.width};
    Tensor y = empty(stream.device(), shape, first.dtype());
    params.count = count_of(op, y) / 4;
    const auto& shader = by_dtype(op, first.dtype(), shader::concat_f32, shader::concat_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup}),
                    {write(y), read_view(bound[0]), read_view(bound[1]), read_view(bound[2]),
                     read_view(bound[3])},
                    params, groups_for(params.count, kElementGroup), op);
    return y;
}

}  // namespace fovea
