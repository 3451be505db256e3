#include "backend/ops/elementwise.h"

#include <array>

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/params.h"

namespace fovea {
namespace {

/// What an op of elementwise.comp reads, besides its parameters.
struct Call {
    std::string_view name;
    uint32_t op;           ///< ELEMENTWISE_…
    uint32_t variant = 0;  ///< see VARIANT there
    std::array<Tensor, 4> inputs;
};

Tensor run(vk::Stream& stream, const Call& call, Shape shape, shader::ElementwiseParams params) {
    const Tensor& a = call.inputs[0];
    Tensor y = empty(stream.device(), std::move(shape), a.dtype());
    params.count = count_of(call.name, y);
    const auto& shader =
        by_dtype(call.name, a.dtype(), shader::elementwise_f32, shader::elementwise_f16);
    stream.dispatch(
        stream.device().program(shader, {kElementGroup, call.op, call.variant}),
        {write(y), read(a), read(call.inputs[1]), read(call.inputs[2]), read(call.inputs[3])},
        params, groups_for(params.count, kElementGroup), call.name);
    return y;
}

Tensor binary(vk::Stream& stream, std::string_view name, uint32_t op, const Tensor& a,
              const Tensor& b) {
    count_of(name, a);
    const uint32_t n = count_of(name, b);
    const bool suffix = b.rank() <= a.rank() &&
                        std::equal(b.shape().rbegin(), b.shape().rend(), a.shape().rbegin());
    require(suffix, "[{}] {} expected to be the end of {}", name, to_string(b.shape()),
            to_string(a.shape()));
    require(a.dtype() == b.dtype(), "[{}] {} and {} cannot be mixed", name, name_of(a.dtype()),
            name_of(b.dtype()));
    const bool same_shape = a.numel() == b.numel();
    return run(stream, {name, op, same_shape, {a, b}}, a.shape(), {.n = n});
}

}  // namespace

Tensor add(vk::Stream& stream, const Tensor& a, const Tensor& b) {
    return binary(stream, "add", shader::ELEMENTWISE_ADD, a, b);
}

Tensor multiply(vk::Stream& stream, const Tensor& a, const Tensor& b) {
    return binary(stream, "multiply", shader::ELEMENTWISE_MULTIPLY, a, b);
}

Tensor linear_combination(vk::Stream& stream, std::span<const Term> terms) {
    constexpr std::string_view name = "linear_combination";
    require(!terms.empty() && terms.size() <= 4, "[{}] one to four terms expected, found {}", name,
            terms.size());
    Call call{name, shader::ELEMENTWISE_LINEAR, static_cast<uint32_t>(terms.size()), {}};
    shader::ElementwiseParams params{};
    for (size_t i = 0; i < terms.size(); ++i) {
        count_of(name, terms[i].x);
        require_like(name, "term", terms[i].x, terms[0].x.shape(), terms[0].x.dtype());
        call.inputs[i] = terms[i].x;
        params.coefficients[i] = terms[i].coefficient;
    }
    return run(stream, call, terms[0].x.shape(), params);
}

Tensor linear_combination(vk::Stream& stream, std::initializer_list<Term> terms) {
    return linear_combination(stream, std::span(terms.begin(), terms.size()));
}

Tensor activate(vk::Stream& stream, const Tensor& x, Activation activation) {
    count_of("activate", x);
    if (activation == Activation::none) return x;
    return run(stream,
               {"activate", shader::ELEMENTWISE_ACTIVATE, static_cast<uint32_t>(activation), {x}},
               x.shape(), {});
}

Tensor affine(vk::Stream& stream, const Tensor& x, const Tensor& scale, const Tensor& shift) {
    count_of("affine", x);
    require(x.rank() >= 1 && scale && shift, "[affine] x of at least one axis, scale and shift");
    require_like("affine", "scale", scale, {x.dim(-1)}, x.dtype());
    require_like("affine", "shift", shift, {x.dim(-1)}, x.dtype());
    return run(stream, {"affine", shader::ELEMENTWISE_AFFINE, 0, {x, scale, shift}}, x.shape(),
               {.n = static_cast<uint32_t>(x.dim(-1))});
}

Tensor soft_clamp(vk::Stream& stream, const Tensor& x, float limit) {
    count_of("soft_clamp", x);
    require(limit > 0, "[soft_clamp] positive limit expected, found {}", limit);
    return run(stream, {"soft_clamp", shader::ELEMENTWISE_SOFT_CLAMP, 0, {x}}, x.shape(),
               {.coefficients = {limit}});
}

Tensor convert(vk::Stream& stream, const Tensor& x, DType dtype) {
    const uint32_t count = count_of("convert", x);
    const auto& shader =
        by_dtype("convert", dtype, shader::convert_f16_f32, shader::convert_f32_f16);
    by_dtype("convert", x.dtype(), shader, shader);
    if (x.dtype() == dtype) return x;
    Tensor y = empty(stream.device(), x.shape(), dtype);
    stream.dispatch(stream.device().program(shader, {kElementGroup}), {write(y), read(x)}, count,
                    groups_for(count, kElementGroup), "convert");
    return y;
}

Tensor broadcast_add(vk::Stream& stream, const Tensor& table, const Tensor& m) {
    count_of("broadcast_add", table);
    count_of("broadcast_add", m);
    require(table.rank() == 2 && m.rank() >= 2,
            "[broadcast_add] (r, n) and m expected, found {} {}", to_string(table.shape()),
            to_string(m.shape()));
    const int64_t rows = table.dim(0), n = table.dim(1), batch = m.dim(0);
    const Shape wanted = m.rank() == 2 ? Shape{batch, n} : Shape{batch, rows, n};
    require_like("broadcast_add", "m", m, wanted, table.dtype());
    return run(stream, {"broadcast_add", shader::ELEMENTWISE_BROADCAST_ADD, 0, {table, m}},
               {rows, batch, n},
               {.n = static_cast<uint32_t>(n),
                .batch = static_cast<uint32_t>(batch),
                .b_rows = static_cast<uint32_t>(m.rank() == 2 ? 1 : rows)});
}

}  // namespace fovea
