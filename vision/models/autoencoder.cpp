#include "vision/models/autoencoder.h"

#include <nlohmann/json.hpp>
#include <string>

#include "backend/error.h"
#include "backend/ops/conv2d.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/group_norm.h"
#include "backend/ops/resample.h"

namespace fovea {
namespace {

constexpr int kStages = 3, kBlocks = 3;
constexpr int kPoolGroups = 4;
constexpr float kLatentLimit = 3;  // the decoder squashes its input softly into (−3, 3)

Tensor conv(vk::Stream& stream, const Tensor& x, const Convolution& layer,
            Activation activation = Activation::none, Tensor residual = {}) {
    return conv2d(stream, x, layer.weight,
                  {.bias = layer.bias,
                   .stride = layer.stride,
                   .activation = activation,
                   .residual = std::move(residual)});
}

AutoencoderBlock load_block(const Loader& weights) {
    const int64_t in = weights.extent("conv.0.weight", 1), out = weights.extent("conv.0.weight", 0);
    AutoencoderBlock block{.a = weights.convolution("conv.0", in, out, 3),
                           .b = weights.convolution("conv.2", out, out, 3),
                           .c = weights.convolution("conv.4", out, out, 3),
                           .skip = {},
                           .pool = {}};
    if (weights.has("skip.weight")) block.skip = weights.convolution("skip", in, out, 1);
    if (weights.has("pool.0.weight")) {
        const int64_t wide = weights.extent("pool.0.weight", 0);
        block.pool = {.widen = weights.convolution("pool.0", in, wide, 1),
                      .narrow = weights.convolution("pool.3", wide, in, 1),
                      .norm = weights.affine("pool.1", wide)};
    }
    return block;
}

Tensor forward(vk::Stream& stream, const AutoencoderBlock& block, Tensor x) {
    if (block.pool) {
        Tensor wide = conv(stream, x, block.pool->widen);
        wide = group_norm(stream, wide,
                          {.weight = block.pool->norm.weight,
                           .bias = block.pool->norm.bias,
                           .groups = kPoolGroups,
                           .activation = Activation::relu});
        x = conv(stream, wide, block.pool->narrow, Activation::none, x);
    }
    Tensor y = conv(stream, x, block.a, Activation::relu);
    y = conv(stream, y, block.b, Activation::relu);
    const Tensor skip = block.skip ? conv(stream, x, *block.skip) : x;
    return conv(stream, y, block.c, Activation::relu, skip);
}

Convolution load_convolution(const Loader& weights, int index, int stride = 1) {
    const std::string name = std::to_string(index);
    return weights.convolution(name, weights.extent(name + ".weight", 1),
                               weights.extent(name + ".weight", 0), 3, stride);
}

}  // namespace

// Module indices of the sequential network: 0 in, 1 block, then per stage a strided convolution and
// three blocks.
Encoder::Encoder(const Loader& weights) : in_(load_convolution(weights, 0)) {
    first_ = load_block(weights.at("1"));
    int index = 2;
    for (int s = 0; s < kStages; ++s) {
        Stage stage{.down = load_convolution(weights, index++, 2), .blocks = {}};
        for (int b = 0; b < kBlocks; ++b)
            stage.blocks[b] = load_block(weights.at(std::to_string(index++)));
        stages_.push_back(std::move(stage));
    }
    out_ = load_convolution(weights, index);
}

Tensor Encoder::forward(vk::Stream& stream, const Tensor& picture) const {
    require(picture.rank() == 4 && picture.dim(1) % Autoencoder::kDown == 0 &&
                picture.dim(2) % Autoencoder::kDown == 0,
            "[autoencoder] pictures are (batch, height, width, 3) with sides that are multiples of "
            "8, found {}",
            to_string(picture.shape()));
    Tensor x = conv(stream, picture, in_);
    x = fovea::forward(stream, first_, x);
    for (const auto& stage : stages_) {
        x = conv(stream, x, stage.down);
        for (const auto& block : stage.blocks) x = fovea::forward(stream, block, x);
    }
    return conv(stream, x, out_);
}

// Indices: 0 clamp, 1 in, 2 relu, then per stage three blocks, upsampling, a convolution; a block,
// out.
Decoder::Decoder(const Loader& weights) : in_(load_convolution(weights, 1)) {
    int index = 3;
    for (int s = 0; s < kStages; ++s) {
        Stage stage;
        for (auto& block : stage.blocks) block = load_block(weights.at(std::to_string(index++)));
        ++index;
        stage.up = load_convolution(weights, index++);
        stages_.push_back(std::move(stage));
    }
    last_ = load_block(weights.at(std::to_string(index++)));
    out_ = load_convolution(weights, index);
}

Tensor Decoder::forward(vk::Stream& stream, const Tensor& latent) const {
    require(latent.rank() == 4 && latent.dim(3) == latent_channels(),
            "[autoencoder] latents are (batch, height, width, {}), found {}", latent_channels(),
            to_string(latent.shape()));
    Tensor x = soft_clamp(stream, latent, kLatentLimit);
    x = conv(stream, x, in_, Activation::relu);
    for (const auto& stage : stages_) {
        for (const auto& block : stage.blocks) x = fovea::forward(stream, block, x);
        x = upsample_nearest(stream, x, 2);
        x = conv(stream, x, stage.up);
    }
    x = fovea::forward(stream, last_, x);
    return conv(stream, x, out_);
}

Autoencoder::Autoencoder(vk::Stream& stream, const Weights& weights, DType dtype)
    : encoder_(Loader(stream, weights, dtype, "encoder.")),
      decoder_(Loader(stream, weights, dtype, "decoder.")) {
    const auto config = model_config(weights, "autoencoder");
    const auto mean = config.at("latent_mean").get<std::vector<float>>();
    const auto deviation = config.at("latent_std").get<std::vector<float>>();
    const auto channels = static_cast<size_t>(latent_channels());
    require(mean.size() == channels && deviation.size() == channels,
            "[autoencoder] latent_mean and latent_std need {} values, found {} and {}", channels,
            mean.size(), deviation.size());
    std::vector<float> inverse, shift;
    for (size_t c = 0; c < channels; ++c) {
        require(deviation[c] > 0, "[autoencoder] latent_std[{}] is {}, expected above 0", c,
                deviation[c]);
        inverse.push_back(1 / deviation[c]);
        shift.push_back(-mean[c] / deviation[c]);
    }
    const Shape shape{latent_channels()};
    to_unit_scale_ = upload(stream, inverse, shape, dtype);
    to_unit_shift_ = upload(stream, shift, shape, dtype);
    from_unit_scale_ = upload(stream, deviation, shape, dtype);
    from_unit_shift_ = upload(stream, mean, shape, dtype);
}

Tensor Autoencoder::encode(vk::Stream& stream, const Tensor& picture) const {
    return affine(stream, encoder_.forward(stream, picture), to_unit_scale_, to_unit_shift_);
}

Tensor Autoencoder::decode(vk::Stream& stream, const Tensor& z) const {
    return decoder_.forward(stream, affine(stream, z, from_unit_scale_, from_unit_shift_));
}

}  // namespace fovea
