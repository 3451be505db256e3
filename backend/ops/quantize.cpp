#include "backend/ops/quantize.h"

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/attention/quantize_params.h"

namespace fovea {
namespace {

struct KeySums {
    Tensor sums;  // (batch · kv_heads, chunks, head_dim) f32
    uint32_t chunks;
};

KeySums key_sums(vk::Stream& stream, const Tensor& k) {
    constexpr int64_t kWorkgroups = 512, kMostChunks = 32, kLeastTokens = 64;
    const int64_t heads = k.dim(0) * k.dim(1), len = k.dim(2), head_dim = k.dim(3);
    const int64_t wanted = std::clamp<int64_t>(kWorkgroups / heads, 1, kMostChunks);
    const int64_t chunk = std::max((len + wanted - 1) / wanted, kLeastTokens);
    const auto chunks = static_cast<uint32_t>((len + chunk - 1) / chunk);
    vk::Device& device = stream.device();
    const Tensor sums = empty(device, {heads, chunks, head_dim}, DType::f32);
    constexpr uint32_t kWorkgroup = 256;
    stream.dispatch(device.program(shader::key_sums, {kWorkgroup, static_cast<uint32_t>(head_dim)}),
                    {write(sums), read(k)},
                    shared::KeySumsParams{.kv_len = static_cast<uint32_t>(len),
                                          .chunk = static_cast<uint32_t>(chunk)},
                    {chunks, static_cast<uint32_t>(heads)}, "quantize");
    return {sums, chunks};
}

/// About eight vectors an invocation.
uint32_t workgroup_of(uint32_t rows, uint32_t columns) {
    return std::clamp(std::bit_ceil(rows * columns / 64), 64u, 256u);
}

}  // namespace

QuantizedScores quantize_scores(vk::Stream& stream, const Tensor& q, const Tensor& k,
                                const DeviceList& list, const QuantizeOptions& o) {
    const auto u = [](int64_t n) { return static_cast<uint32_t>(n); };
    const uint32_t batch = u(q.dim(0)), heads = u(q.dim(1)), kv_heads = u(k.dim(1)),
                   head_dim = u(q.dim(3)), group = heads / kv_heads;
    const uint32_t extra_len = o.k_extra ? u(o.k_extra.dim(2)) : 0;
    require(q.dtype() == DType::f16 && k.dtype() == DType::f16,
            "[quantize] q and k must be f16, found {} and {}", name_of(q.dtype()),
            name_of(k.dtype()));
    require(stream.device().info().limits.min_subgroup_size >= 4,
            "[quantize] subgroups of at least 4 invocations expected, found {}",
            stream.device().info().limits.min_subgroup_size);
    const uint32_t copies = list.list_words == 0 ? kv_heads : heads;
    const uint32_t k_tiles = list.most_key_tiles + (extra_len + o.tile.k - 1) / o.tile.k;
    const uint32_t q_slots = list.query_tiles * o.tile.q;

    vk::Device& device = stream.device();
    const QuantizedScores result{
        .q = empty(device, {batch, heads, q_slots, o.columns}, DType::u8),
        .q_slots = empty(device, {batch, heads, q_slots, 2}, DType::f32),
        .k = empty(device, {batch, copies, int64_t{k_tiles} * o.tile.k, o.columns}, DType::u8),
        .k_scales = empty(device, {batch, copies, k_tiles}, DType::f32),
        .k_tiles = k_tiles};

    const KeySums means = key_sums(stream, k);
    const auto quantize = [&](const Tensor& y, const Tensor& scales, const Tensor& x,
                              const Tensor& x_extra, bool queries, uint32_t rows, vk::Groups groups,
                              const shared::QuantizeParams& params) {
        const bool mean = !queries || o.shifts;
        stream.dispatch(
            device.program(shader::quantize, {workgroup_of(rows, o.columns), head_dim, o.columns,
                                              rows, queries, list.ordered, mean}),
            {write(y), write(scales), read(x), read(x_extra), read(mean ? means.sums : Tensor{}),
             read(list.words)},
            params, groups, "quantize");
    };
    // Queries first: without q·mean they need not wait for the sums.
    quantize(result.q, result.q_slots, q, {}, true, o.q_rows, {q_slots / o.q_rows, heads, batch},
             {.len = u(q.dim(2)),
              .kv_len = u(k.dim(2)),
              .chunks = means.chunks,
              .list_words = list.list_words,
              .head_group = 1,
              .mean_group = group,
              .scale = o.scale});
    quantize(result.k, result.k_scales, k, o.k_extra, false, o.tile.k, {k_tiles, copies, batch},
             {.len = u(k.dim(2)),
              .extra_len = extra_len,
              .kv_len = u(k.dim(2)),
              .chunks = means.chunks,
              .list_words = list.list_words,
              .head_group = copies / kv_heads,
              .mean_group = copies / kv_heads});
    return result;
}

}  // namespace fovea
