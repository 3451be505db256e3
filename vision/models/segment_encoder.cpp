#include "vision/models/segment_encoder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "backend/error.h"
#include "backend/ops/conv2d.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/rope.h"

namespace fovea {

SegmentConfig SegmentConfig::read(const Weights& weights) {
    const auto json = model_config(weights, "segment");
    std::vector<std::string> attentions;
    for (const auto& entry : json.value("attentions", nlohmann::json::array()))
        attentions.push_back(entry.dump());
    const SegmentConfig config{.size = json.at("size"),
                               .width = json.at("width"),
                               .heads = json.at("heads"),
                               .layers = json.at("layers"),
                               .hidden = json.at("hidden"),
                               .stem = json.at("stem"),
                               .window = json.at("window"),
                               .global_layers = json.at("global_layers"),
                               .attentions = attentions,
                               .rope_axes = json.at("rope_axes"),
                               .rope_theta = json.at("rope_theta"),
                               .text_width = json.at("text_width"),
                               .match_width = json.at("match_width"),
                               .decoder_layers = json.at("decoder_layers"),
                               .decoder_width = json.at("decoder_width"),
                               .decoder_hidden = json.at("decoder_hidden"),
                               .memory_layers = json.at("memory_layers"),
                               .memory_hidden = json.at("memory_hidden"),
                               .upscale = json.at("upscale"),
                               .masks = json.at("masks")};
    require(attentions.empty() || std::ssize(attentions) == config.layers,
            "[segment] attentions of {} layers expected, found {}", config.layers,
            attentions.size());
    for (const int64_t layer : config.global_layers)
        require(layer >= 0 && layer < config.layers, "[segment] global layer {} of {} layers",
                layer, config.layers);
    return config;
}

RopeOptions SegmentConfig::rope(int64_t frames, int64_t rows, int64_t columns) const {
    return {.axes = rope_axes,
            .grid = {frames, rows, columns},
            .theta = rope_theta,
            .norm_weight = {},
            .layout = HeadLayout::tokens_first};
}

SegmentEncoder::SegmentEncoder(vk::Stream& stream, const Weights& weights, DType dtype)
    : config_(SegmentConfig::read(weights)) {
    const int64_t width = config_.width;
    const auto [fine, middle] = config_.stem;
    const std::vector<float> two(3, 2.0f), minus_one(3, -1.0f);
    input_scale_ = upload(stream, two, {3}, dtype);
    input_shift_ = upload(stream, minus_one, {3}, dtype);
    const Loader segment(stream, weights, dtype, "segment.");
    const std::array<int64_t, 6> channels{3, fine, fine, middle, middle, width};
    for (size_t i = 0; i + 1 < channels.size(); ++i)
        stem_.push_back(segment.convolution("stem." + std::to_string(i), channels[i],
                                            channels[i + 1], 3, i % 2 == 0 ? 2 : 1));
    for (int64_t i = 0; i < config_.layers; ++i)
        blocks_.push_back(load_block(segment.at("blocks." + std::to_string(i)), i));
    norm_ = segment.affine("norm", width);
    skip1_ = segment.linear("skip1", middle, config_.upscale[0]);
    skip2_ = segment.linear("skip2", fine, config_.upscale[1]);
}

SegmentEncoder::Block SegmentEncoder::load_block(const Loader& weights, int64_t layer) const {
    const int64_t width = config_.width, head_dim = width / config_.heads;
    const std::string chosen =
        config_.attentions.empty() ? "null" : config_.attentions[static_cast<size_t>(layer)];
    if (chosen == "null")
        return {load_encoder_block(weights, width), weights.tensor("q_norm.weight", {head_dim}),
                weights.tensor("k_norm.weight", {head_dim})};
    Block block{load_encoder_block(weights, width, false)};
    block.chosen = load_backbone_attention(nlohmann::json::parse(chosen), weights.at("attention"),
                                           width, config_.heads);
    return block;
}

Tensor SegmentEncoder::mix(vk::Stream& stream, const Block& block, const Tensor& x, int64_t rows,
                           int64_t columns, const Pattern& pattern) const {
    const Tensor h = layer_norm(stream, x, block.norm1);
    if (!block.chosen)
        return finish_encoder_block(
            stream, block, x, attention(stream, block, h, config_.rope(1, rows, columns), pattern));
    const Shape grid{x.dim(0), rows, columns, config_.width};
    const Tensor y = block.chosen->forward(stream, h.reshape(grid), x.reshape(grid));
    return encoder_mlp(stream, block, y.reshape(x.shape()));
}

Tensor SegmentEncoder::attention(vk::Stream& stream, const Block& block, const Tensor& h,
                                 const RopeOptions& rope, const Pattern& pattern) const {
    RopeOptions q_rope = rope, k_rope = rope;
    q_rope.norm_weight = block.q_norm;
    k_rope.norm_weight = block.k_norm;
    const Tensor qkv = linear(stream, h, block.qkv);
    const auto part = [&](int64_t i) { return heads_of(qkv, config_.heads, i, 3); };
    return attend(stream, fovea::rope(stream, part(0), q_rope),
                  fovea::rope(stream, part(1), k_rope), part(2), pattern);
}

SegmentFeatures SegmentEncoder::forward(vk::Stream& stream, const Tensor& pictures,
                                        std::vector<Tensor>* blocks) const {
    require(pictures.rank() == 4 && pictures.dim(1) > 0 && pictures.dim(1) % kDown == 0 &&
                pictures.dim(2) > 0 && pictures.dim(2) % kDown == 0 && pictures.dim(3) == 3,
            "[segment] pictures are (batch, height, width, 3) with sides that are multiples of {}, "
            "found {}",
            kDown, to_string(pictures.shape()));
    Tensor x = affine(stream, pictures, input_scale_, input_shift_);
    std::array<Tensor, 2> kept;  // at half and quarter resolution
    for (size_t i = 0; i < stem_.size(); ++i) {
        const bool last = i + 1 == stem_.size();
        x = conv2d(stream, x, stem_[i].weight,
                   {.bias = stem_[i].bias,
                    .stride = stem_[i].stride,
                    .activation = last ? Activation::none : Activation::gelu});
        if (i % 2 == 1) kept[i / 2] = x;
    }
    const int64_t rows = x.dim(1), columns = x.dim(2);
    const auto side = [&](int64_t extent) {
        return static_cast<uint32_t>(std::min(config_.window, extent));
    };
    const Pattern everything = dense(),
                  window = neighborhood(
                      {.shape = {static_cast<uint32_t>(rows), static_cast<uint32_t>(columns)}},
                      {.window = {side(rows), side(columns)}});
    x = x.reshape({x.dim(0), rows * columns, config_.width});
    const auto& global = config_.global_layers;
    for (size_t i = 0; i < blocks_.size(); ++i) {
        const bool all =
            std::find(global.begin(), global.end(), static_cast<int64_t>(i)) != global.end();
        x = mix(stream, blocks_[i], x, rows, columns, all ? everything : window);
        if (blocks != nullptr) blocks->push_back(x);
    }
    return {.tokens = layer_norm(stream, x, norm_),
            .skip1 = linear(stream, kept[1], skip1_),
            .skip2 = linear(stream, kept[0], skip2_),
            .rows = rows,
            .columns = columns};
}

}  // namespace fovea
