#include "vision/models/text_encoder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "backend/error.h"
#include "backend/ops/attention.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/embedding.h"

namespace fovea {

TextEncoder::TextEncoder(vk::Stream& stream, const Weights& weights, DType dtype) {
    const auto json = model_config(weights, "text");
    config_ = {.vocabulary = json.at("vocabulary"),
               .width = json.at("width"),
               .heads = json.at("heads"),
               .layers = json.at("layers"),
               .length = json.at("length")};
    const int64_t width = config_.width;
    const Loader text(stream, weights, dtype, "text.");
    words_ = text.tensor("token.weight", {config_.vocabulary, width});
    positions_ = text.tensor("position.weight", {config_.length, width});
    for (int64_t i = 0; i < config_.layers; ++i) {
        blocks_.push_back(load_encoder_block(text.at("blocks." + std::to_string(i)), width));
    }
    norm_ = text.affine("norm", width);
}

Tensor TextEncoder::forward(vk::Stream& stream, std::span<const int32_t> ids) const {
    const int64_t count = static_cast<int64_t>(ids.size());
    require(count > 0 && count % config_.length == 0, "[text] {} ids, expected a multiple of {}",
            count, config_.length);
    require(std::all_of(ids.begin(), ids.end(),
                        [&](int32_t id) { return id >= 0 && id < config_.vocabulary; }),
            "[text] a token id is outside the vocabulary of {}", config_.vocabulary);
    const int64_t batch = count / config_.length;

    Tensor x = embedding(stream, upload(stream, ids, {count}), words_);
    x = add(stream, x.reshape({batch, config_.length, config_.width}), positions_);
    for (const auto& block : blocks_) {
        const Tensor qkv = linear(stream, layer_norm(stream, x, block.norm1), block.qkv);
        const auto part = [&](int64_t i) { return heads_of(qkv, config_.heads, i, 3); };
        x = finish_encoder_block(stream, block, x,
                                 attend(stream, part(0), part(1), part(2), dense()));
    }
    return layer_norm(stream, x, norm_);
}

}  // namespace fovea
