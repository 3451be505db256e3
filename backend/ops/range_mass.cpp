#include "backend/ops/range_mass.h"

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/attention/merge_params.h"

namespace fovea {
namespace {

/// Every query sees the keys of the range: attention visits no block outside, nothing is copied.
struct OnlyKeys {
    TokenRange range;
    bool keeps(uint32_t, uint32_t k) const { return k >= range.begin && k < range.end; }
    Grid grid() const { return {}; }
    std::string key() const { return fmt::format("keys:{}-{}", range.begin, range.end); }
    Cover cover(TokenRange, TokenRange keys) const {
        if (keys.end <= range.begin || keys.begin >= range.end) return Cover::none;
        return keys.begin >= range.begin && keys.end <= range.end ? Cover::full : Cover::partial;
    }
};

}  // namespace

Tensor range_mass(vk::Stream& stream, const Tensor& lse_range, const Tensor& lse_all) {
    const uint32_t count = count_of("range_mass", lse_range);
    require(lse_all && lse_range.dtype() == DType::f32, "[range_mass] two f32 tensors expected");
    require_like("range_mass", "lse_all", lse_all, lse_range.shape(), DType::f32);
    Tensor mass = empty(stream.device(), lse_range.shape(), DType::f32);
    stream.dispatch(stream.device().program(shader::range_mass, {kElementGroup}),
                    {write(mass), read(lse_range), read(lse_all)},
                    shared::RangeMassParams{.count = count}, groups_for(count, kElementGroup),
                    "range_mass");
    return mass;
}

Tensor range_mass(vk::Stream& stream, const Tensor& q, const Tensor& k, TokenRange range,
                  const RangeMassOptions& options) {
    require(k && k.rank() == 4, "[range_mass] k (batch, kv_heads, kv_len, head_dim) expected");
    require(range.begin < range.end && range.end <= k.dim(2),
            "[range_mass] a range of 1 to {} keys expected, found {} to {}", k.dim(2), range.begin,
            range.end);
    const AttentionOptions same{.scale = options.scale, .path = options.path};
    const Tensor lse_range = attention_lse(stream, q, k, OnlyKeys{range}, same),
                 lse_all = attention_lse(stream, q, k, dense(), same);
    return range_mass(stream, lse_range, lse_all);
}

}  // namespace fovea
