#include "backend/ops/block_mass.h"

#include <cmath>
#include <numbers>

#include "backend/ops/device_list.h"
#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/attention/block_mass_params.h"

namespace fovea {
namespace {

struct Kernel {
    uint32_t lanes, rows, keys, chunk;
    bool unroll, hand_round;
};

Kernel choose_kernel(const vk::Stream& stream, uint32_t block_q, uint32_t block_k) {
    const uint32_t subgroup = stream.device().info().limits.subgroup_size;
    const uint32_t keys = std::clamp(std::bit_ceil(block_k), 4u, 16u);
    if (is_cpu(stream))  // reasons: tile_scalar.glsl
        return {subgroup, block_q > subgroup ? 2u : 1u,         keys, 32,
                false,    subgroup >= 2 && subgroup <= 2 * keys};
    return {block_q > 32 ? 64u : 32u, 1, keys, 16, true, false};
}

}  // namespace

Tensor block_mass(vk::Stream& stream, const Tensor& q, const Tensor& k, const Pattern& pattern,
                  const BlockMassOptions& options) {
    const TileShape block{options.block_q, options.block_k};
    require(block.q > 0 && block.k > 0, "[block_mass] blocks of at least 1×1 expected, found {}×{}",
            block.q, block.k);
    const Tensor lse = options.lse ? options.lse
                                   : attention_lse(stream, q, k, pattern,  // checks what it takes
                                                   {.scale = options.scale, .path = options.path});
    require(q && k && q.rank() == 4 && k.rank() == 4 && q.dim(0) == k.dim(0) &&
                q.dim(3) == k.dim(3) && q.dtype() == k.dtype() && q.dim(1) % k.dim(1) == 0,
            "[block_mass] q and k (batch, heads, tokens, head_dim) that go together expected");
    require_like("block_mass", "lse", lse, {q.dim(0), q.dim(1), q.dim(2)}, DType::f32);

    vk::Device& device = stream.device();
    const auto u = [](int64_t n) { return static_cast<uint32_t>(n); };
    const uint32_t heads = u(q.dim(1)), q_len = u(q.dim(2)), kv_len = u(k.dim(2)),
                   head_dim = u(q.dim(3));
    const DeviceList list = device_list(stream, pattern, block, q_len, kv_len);
    require(list.key_tiles.has_value(),
            "[block_mass] heads of pattern {} differ in their number of blocks of keys",
            pattern.key());
    const uint32_t query_blocks = list.query_tiles, key_blocks = *list.key_tiles;

    const Tensor mass = empty(device, {q.dim(0), q.dim(1), query_blocks, key_blocks}, DType::f32);
    count_of("block_mass", mass);
    stream.fill(write(mass), 0);  // blocks that are not visited
    const Kernel kernel = choose_kernel(stream, block.q, block.k);
    const float scale =
        options.scale != 0 ? options.scale : 1 / std::sqrt(static_cast<float>(head_dim));
    const shared::BlockMassParams params{.q_len = q_len,
                                         .kv_len = kv_len,
                                         .n_heads = heads,
                                         .n_kv_heads = u(k.dim(1)),
                                         .scale = scale * std::numbers::log2e_v<float>,
                                         .block_q = block.q,
                                         .block_k = block.k,
                                         .key_blocks = key_blocks,
                                         .list_words = list.list_words};
    const auto& shader =
        by_dtype("block_mass", q.dtype(), shader::block_mass_f32, shader::block_mass_f16);
    const auto& program =
        device.program(shader, {kernel.lanes, kernel.rows, kernel.keys, head_dim, kernel.chunk,
                                kernel.unroll, kernel.hand_round, list.ordered});
    stream.dispatch(
        program, {write(mass), read(q), read(k), read(lse), read(list.words)}, params,
        {query_blocks, u(q.dim(0)) * heads, (list.longest_row + kernel.chunk - 1) / kernel.chunk},
        "block_mass");
    return mass;
}

}  // namespace fovea
