#include "backend/ops/rescale.h"

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/attention/rescale_params.h"

namespace fovea {
namespace {

shared::RescaleParams params_of(const Tensor& x, HeadLayout layout) {
    count_of("rescale", x);
    require(x.rank() == 4 && x.dim(3) % 4 == 0,
            "[rescale] x of four axes expected, the last a multiple of 4, found {}",
            to_string(x.shape()));
    const bool tokens_first = layout == HeadLayout::tokens_first;
    const auto u = [](int64_t n) { return static_cast<uint32_t>(n); };
    const uint32_t heads = u(x.dim(tokens_first ? 2 : 1)), tokens = u(x.dim(tokens_first ? 1 : 2));
    const uint32_t d4 = u(x.dim(3) / 4);
    return {.count = 0,
            .d4 = d4,
            .heads = heads,
            .slots = tokens,
            .tokens = tokens,
            .sample_pitch = heads * tokens * d4,
            .head_pitch = tokens_first ? d4 : tokens * d4,
            .token_pitch = tokens_first ? heads * d4 : d4,
            .block = 1,
            .sign = 1,
            .shift = 0};
}

void dispatch(vk::Stream& stream, bool blocks, std::initializer_list<vk::Access> accesses,
              DType dtype, const shared::RescaleParams& params) {
    const auto& shader = by_dtype("rescale", dtype, shader::rescale_f32, shader::rescale_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup, blocks}), accesses, params,
                    groups_for(params.count, kElementGroup), "rescale");
}

}  // namespace

Tensor rescale(vk::Stream& stream, const Tensor& x, const Tensor& factor, const Tensor& addend,
               const RescaleOptions& options) {
    shared::RescaleParams params = params_of(x, options.layout);
    require(factor && addend, "[rescale] x, factor and addend must be there");
    require_like("rescale", "factor", factor, {x.dim(0), params.heads, params.tokens}, DType::f32);
    require_like("rescale", "addend", addend, x.shape(), x.dtype());
    params.count = static_cast<uint32_t>(x.numel() / 4);
    params.sign = options.subtract ? -1.0f : 1.0f;
    params.shift = options.shift;
    Tensor y = empty(stream.device(), x.shape(), x.dtype());
    dispatch(stream, false,
             {write(y), read(x), read(factor), read(addend), read(Tensor()), read(Tensor())},
             x.dtype(), params);
    return y;
}

void rescale_blocks(vk::Stream& stream, const Tensor& x, const Tensor& factor, const Tensor& addend,
                    const Tensor& order, HeadLayout layout) {
    shared::RescaleParams params = params_of(x, layout);
    require(factor && addend && order && factor.rank() == 3 && order.rank() == 1,
            "[rescale] factor (batch, heads, blocks), addend and order must be there");
    const int64_t blocks = factor.dim(2);
    require(blocks > 0 && order.dim(0) % blocks == 0 && order.dim(0) >= params.tokens &&
                order.dtype() == DType::i32,
            "[rescale] an order of whole blocks expected, found {} slots in {} blocks",
            order.dim(0), blocks);
    require_like("rescale", "factor", factor, {x.dim(0), params.heads, blocks}, DType::f32);
    require_like("rescale", "addend", addend, {x.dim(0), params.heads, blocks, x.dim(3)},
                 DType::f32);
    params.slots = static_cast<uint32_t>(order.dim(0));
    params.block = params.slots / static_cast<uint32_t>(blocks);
    const uint64_t count =
        uint64_t{params.d4} * params.slots * params.heads * static_cast<uint64_t>(x.dim(0));
    require(count < uint64_t{1} << 32, "[rescale] {} and its order are too large",
            to_string(x.shape()));
    params.count = static_cast<uint32_t>(count);
    dispatch(stream, true,
             {read_write(x), read(x), read(factor), read(Tensor()), read(addend), read(order)},
             x.dtype(), params);
}

}  // namespace fovea
