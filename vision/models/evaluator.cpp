#include "vision/models/evaluator.h"

#include <nlohmann/json.hpp>

#include "backend/error.h"
#include "backend/ops/attention.h"
#include "backend/ops/conv2d.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/reduce.h"
#include "backend/ops/rope.h"

namespace fovea {
namespace {

EvaluatorConfig parse_config(const nlohmann::json& json) {
    return {.width = json.at("width"),
            .heads = json.at("heads"),
            .layers = json.at("layers"),
            .size = json.at("size"),
            .objects = json.at("objects"),
            .stem = json.at("stem"),
            .rope_axes = json.at("rope_axes"),
            .rope_theta = json.at("rope_theta"),
            .colors = json.at("colors"),
            .styles = json.at("styles")};
}

}  // namespace

Evaluator::Evaluator(vk::Stream& stream, const Weights& weights, DType dtype)
    : config_(parse_config(model_config(weights, "evaluator"))) {
    const int64_t width = config_.width, head_dim = width / config_.heads;
    require(!config_.stem.empty() && config_.stem.back() == width,
            "[evaluator] the stem must end at width {}", width);
    const std::vector<float> two(3, 2.0f), minus_one(3, -1.0f);
    input_scale_ = upload(stream, two, {3}, dtype);
    input_shift_ = upload(stream, minus_one, {3}, dtype);
    const Loader evaluator(stream, weights, dtype, "evaluator.");
    int64_t channels = 3;
    for (size_t i = 0; i < config_.stem.size(); ++i) {
        stem_.push_back(
            evaluator.convolution("stem." + std::to_string(i), channels, config_.stem[i], 3, 2));
        channels = config_.stem[i];
    }
    for (int64_t i = 0; i < config_.layers; ++i) {
        const Loader b = evaluator.at("blocks." + std::to_string(i));
        blocks_.push_back({load_encoder_block(b, width), b.tensor("q_norm.weight", {head_dim}),
                           b.tensor("k_norm.weight", {head_dim})});
    }
    norm_ = evaluator.affine("norm", width);
    objects_ = evaluator.linear("objects", width, config_.objects + 1);
    color_ = evaluator.linear("color", width, static_cast<int64_t>(config_.colors.size()));
    style_ = evaluator.linear("style", width, static_cast<int64_t>(config_.styles.size()));
}

Evaluator::Logits Evaluator::forward(vk::Stream& stream, const Tensor& pictures) const {
    require(pictures.rank() == 4 && pictures.dim(1) == config_.size &&
                pictures.dim(2) == config_.size && pictures.dim(3) == 3,
            "[evaluator] pictures are (batch, {0}, {0}, 3), found {1}", config_.size,
            to_string(pictures.shape()));
    Tensor x = affine(stream, pictures, input_scale_, input_shift_);
    for (size_t i = 0; i < stem_.size(); ++i)
        x = conv2d(stream, x, stem_[i].weight,
                   {.bias = stem_[i].bias,
                    .stride = stem_[i].stride,
                    .activation = i + 1 < stem_.size() ? Activation::relu : Activation::none});
    RopeOptions q_rope{.axes = config_.rope_axes,
                       .grid = {1, x.dim(1), x.dim(2)},
                       .theta = config_.rope_theta,
                       .norm_weight = {},
                       .layout = HeadLayout::tokens_first};
    x = x.reshape({x.dim(0), x.dim(1) * x.dim(2), config_.width});
    for (const auto& b : blocks_) {
        RopeOptions k_rope = q_rope;
        q_rope.norm_weight = b.q_norm;
        k_rope.norm_weight = b.k_norm;
        const Tensor qkv = linear(stream, layer_norm(stream, x, b.norm1), b.qkv);
        const auto part = [&](int64_t i) { return heads_of(qkv, config_.heads, i, 3); };
        x = finish_encoder_block(stream, b, x,
                                 attend(stream, rope(stream, part(0), q_rope),
                                        rope(stream, part(1), k_rope), part(2), dense()));
    }
    x = layer_norm(stream, x, norm_);
    const Tensor mean = mean_tokens(stream, x);
    return {.objects = linear(stream, x, objects_),
            .color = linear(stream, mean, color_),
            .style = linear(stream, mean, style_)};
}

}  // namespace fovea
