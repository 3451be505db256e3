#include "backend/ops/probabilities.h"

#include <cmath>

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/attention/probabilities_params.h"

namespace fovea {

Tensor probabilities(vk::Stream& stream, const Tensor& q, const Tensor& k, float scale) {
    count_of("probabilities", q);
    require(q.rank() == 4 && k && k.rank() == 4 && k.dtype() == q.dtype() && k.dim(0) == q.dim(0) &&
                k.dim(2) == q.dim(2) && k.dim(3) == q.dim(3),
            "[probabilities] q (batch, tokens, heads, head_dim) and a k that differs in tokens "
            "alone expected, found {} and {}",
            to_string(q.shape()), to_string(k.shape()));
    const int64_t batch = q.dim(0), queries = q.dim(1), heads = q.dim(2), d = q.dim(3);
    require(k.dim(1) <= kMapKeys,
            "[probabilities] {} keys found, expected at most {}: maps of many keys are not kept",
            k.dim(1), kMapKeys);
    Tensor map = empty(stream.device(), {batch, heads, queries, k.dim(1)}, DType::f32);
    count_of("probabilities", map);
    const shared::ProbabilitiesParams params{
        .rows = static_cast<uint32_t>(batch * heads * queries),
        .queries = static_cast<uint32_t>(queries),
        .keys = static_cast<uint32_t>(k.dim(1)),
        .heads = static_cast<uint32_t>(heads),
        .head_dim = static_cast<uint32_t>(d),
        .q_pitch = static_cast<uint32_t>(q.pitch(heads * d)),
        .k_pitch = static_cast<uint32_t>(k.pitch(heads * d)),
        .scale = scale != 0 ? scale : 1 / std::sqrt(static_cast<float>(d))};
    constexpr uint32_t kGroup = 64;  // a row is long work: small groups spread it over processors
    const auto& shader =
        by_dtype("probabilities", q.dtype(), shader::probabilities_f32, shader::probabilities_f16);
    stream.dispatch(stream.device().program(shader, {kGroup}),
                    {read_write(map), read_view(q), read_view(k)}, params,
                    groups_for(params.rows, kGroup), "probabilities");
    return map;
}

Tensor weighted_values(vk::Stream& stream, const Tensor& map, const Tensor& v) {
    count_of("weighted_values", map);
    require(map.rank() == 4 && map.dtype() == DType::f32 && v && v.rank() == 4 &&
                v.dim(0) == map.dim(0) && v.dim(1) == map.dim(3) && v.dim(2) == map.dim(1),
            "[weighted_values] an f32 map (batch, heads, q_len, kv_len) and v (batch, kv_len, "
            "heads, v_dim) expected, found {} and {}",
            to_string(map.shape()), to_string(v.shape()));
    const int64_t heads = v.dim(2), d = v.dim(3);
    Tensor o = empty(stream.device(), {map.dim(0), map.dim(2), heads, d}, v.dtype());
    const shared::WeightedValuesParams params{.count = count_of("weighted_values", o),
                                              .queries = static_cast<uint32_t>(map.dim(2)),
                                              .keys = static_cast<uint32_t>(map.dim(3)),
                                              .heads = static_cast<uint32_t>(heads),
                                              .v_dim = static_cast<uint32_t>(d),
                                              .v_pitch = static_cast<uint32_t>(v.pitch(heads * d))};
    const auto& shader = by_dtype("weighted_values", v.dtype(), shader::weighted_values_f32,
                                  shader::weighted_values_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup}),
                    {write(o), read(map), read_view(v)}, params,
                    groups_for(params.count, kElementGroup), "weighted_values");
    return o;
}

}  // namespace fovea
