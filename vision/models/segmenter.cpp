#include "vision/models/segmenter.h"

#include <string>

#include "backend/error.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/rope.h"

namespace fovea {
namespace {

// Tokens of frames, (batch, N, width) each, side by side along the second axis.
Tensor joined(vk::Stream& stream, const std::vector<Tensor>& frames) {
    if (frames.size() == 1) return frames[0];
    const int64_t batch = frames[0].dim(0), tokens = frames[0].dim(1), width = frames[0].dim(2);
    const auto count = static_cast<int64_t>(frames.size());
    const Tensor all = empty(stream.device(), {batch, count * tokens, width}, frames[0].dtype());
    for (int64_t i = 0; i < batch; ++i)
        for (int64_t f = 0; f < count; ++f)
            stream.copy(read(frames[static_cast<size_t>(f)].index(i)),
                        write(all.index(i).slice(f * tokens, tokens)));
    return all;
}

}  // namespace

Segmenter::Segmenter(vk::Stream& stream, const Weights& weights, DType dtype)
    : config_(SegmentConfig::read(weights)),
      encoder_(stream, weights, dtype),
      decoder_(stream, weights, dtype) {
    const int64_t width = config_.width, head_dim = width / config_.heads;
    const Loader segment(stream, weights, dtype, "segment.");
    mask_ = load_mlp(segment.at("memory_mask"), 16, width);
    kinds_ = segment.tensor("prompt.memory", {2, width});
    for (int64_t i = 0; i < config_.memory_layers; ++i) {
        const Loader l = segment.at("memory." + std::to_string(i));
        memory_.push_back({.norm1 = l.affine("norm1", width),
                           .norm2 = l.affine("norm2", width),
                           .q = l.linear("q", width, width),
                           .kv = l.linear("kv", width, 2 * width),
                           .out = l.linear("out", width, width),
                           .fc1 = l.linear("fc1", width, config_.memory_hidden),
                           .fc2 = l.linear("fc2", config_.memory_hidden, width),
                           .q_norm = l.tensor("q_norm.weight", {head_dim}),
                           .k_norm = l.tensor("k_norm.weight", {head_dim})});
    }
}

Tensor Segmenter::remember(vk::Stream& stream, const SegmentFeatures& features,
                           const Tensor& logits, Frame frame) const {
    const Tensor h = linear(stream, mask_patches(stream, logits), mask_.fc1, Activation::gelu);
    return add(stream, linear_residual(stream, h, mask_.fc2, features.tokens),
               kinds_.index(static_cast<int64_t>(frame)));
}

SegmentFeatures Segmenter::recall(vk::Stream& stream, const SegmentFeatures& features,
                                  const std::vector<Tensor>& memory) const {
    require(!memory.empty(), "[segment] nothing is remembered");
    const auto frames = static_cast<int64_t>(memory.size());
    const Tensor m = joined(stream, memory);
    Tensor x = features.tokens;
    for (const Memory& layer : memory_) {
        RopeOptions q_rope = config_.rope(1, features.rows, features.columns),
                    k_rope = config_.rope(frames, features.rows, features.columns);
        q_rope.norm_weight = layer.q_norm;
        k_rope.norm_weight = layer.k_norm;
        const Tensor q =
            heads_of(linear(stream, layer_norm(stream, x, layer.norm1), layer.q), config_.heads);
        const Tensor kv = linear(stream, m, layer.kv);
        const Tensor o = attend(stream, rope(stream, q, q_rope),
                                rope(stream, heads_of(kv, config_.heads, 0, 2), k_rope),
                                heads_of(kv, config_.heads, 1, 2), dense());
        x = linear_residual(stream, merge_heads(o), layer.out, x);
        const Tensor h =
            linear(stream, layer_norm(stream, x, layer.norm2), layer.fc1, Activation::gelu);
        x = linear_residual(stream, h, layer.fc2, x);
    }
    SegmentFeatures result = features;
    result.tokens = x;
    return result;
}

}  // namespace fovea
