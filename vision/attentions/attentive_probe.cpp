#include "vision/attentions/attentive_probe.h"

#include <cmath>

#include "backend/error.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/gemm.h"
#include "backend/ops/linear_attention.h"
#include "backend/ops/permute.h"
#include "backend/ops/softmax.h"

namespace fovea {

AttentiveProbe::AttentiveProbe(const Loader& weights, int64_t width, int64_t queries, int64_t out)
    : count_(queries), value_(weights.linear("value", width, out)) {
    require(queries > 0 && out % queries == 0 && out / queries % 4 == 0,
            "[probe] {} channels do not fall into {} slices of a multiple of 4", out, queries);
    const auto stored = weights.floats("queries", {queries, width});
    const float scale = 1 / std::sqrt(static_cast<float>(width));
    std::vector<float> turned(stored.size());
    for (int64_t m = 0; m < queries; ++m)
        for (int64_t i = 0; i < width; ++i) turned[i * queries + m] = scale * stored[m * width + i];
    queries_ = weights.put(turned, {width, queries});
}

Tensor AttentiveProbe::forward(vk::Stream& stream, const Tensor& tokens, Tensor* weights) const {
    require(tokens.rank() == 3, "[probe] tokens (batch, n, width) expected, found {}",
            to_string(tokens.shape()));
    const Tensor logits = permute(stream, gemm(stream, tokens, queries_), {0, 2, 1});
    const Tensor map = softmax(stream, convert(stream, logits, DType::f32));
    if (weights) *weights = map;
    const Tensor slices = heads_of(linear(stream, tokens, value_), count_);
    return feature_sums(stream, slices, map).reshape({tokens.dim(0), value_.weight.dim(1)});
}

}  // namespace fovea
