#include "vision/layers.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "backend/error.h"
#include "backend/ops/gemm.h"
#include "backend/ops/norm.h"

namespace fovea {

Loader::Loader(vk::Stream& stream, const Weights& weights, DType dtype, std::string prefix)
    : stream_(stream), weights_(weights), dtype_(dtype), prefix_(std::move(prefix)) {}

Loader Loader::at(const std::string& name) const {
    return {stream_, weights_, dtype_, prefix_ + name + "."};
}

bool Loader::has(const std::string& name) const {
    return weights_.contains(prefix_ + name);
}

int64_t Loader::extent(const std::string& name, size_t axis) const {
    const auto& shape = weights_.info(prefix_ + name).shape;
    require(axis < shape.size(), "[weights] {}{} has {} axes, axis {} asked", prefix_, name,
            shape.size(), axis);
    return shape[axis];
}

Tensor Loader::tensor(const std::string& name, const Shape& shape) const {
    return put(floats(name, shape), shape);
}

Linear Loader::linear(const std::string& name, int64_t in, int64_t out) const {
    return linear(name, in, out, 0, out);
}

Linear Loader::linear(const std::string& name, int64_t in, int64_t out, int64_t first,
                      int64_t count) const {
    const auto stored = floats(name + ".weight", {out, in}), bias = floats(name + ".bias", {out});
    std::vector<float> turned(in * count);
    for (int64_t o = 0; o < count; ++o)
        for (int64_t i = 0; i < in; ++i) turned[i * count + o] = stored[(first + o) * in + i];
    return {put(turned, {in, count}), put(std::span(bias).subspan(first, count), {count})};
}

Convolution Loader::convolution(const std::string& name, int64_t in, int64_t out, int64_t size,
                                int stride) const {
    const auto stored = weights_.floats(prefix_ + name + ".weight", {out, in, size, size});
    std::vector<float> turned(stored.size());
    const int64_t taps = size * size;
    for (int64_t o = 0; o < out; ++o)
        for (int64_t i = 0; i < in; ++i)
            for (int64_t tap = 0; tap < taps; ++tap)
                turned[(tap * in + i) * out + o] = stored[(o * in + i) * taps + tap];
    Convolution result{.weight = upload(stream_, turned, {size, size, in, out}, dtype_),
                       .bias = {},
                       .stride = stride};
    if (has(name + ".bias")) result.bias = tensor(name + ".bias", {out});
    return result;
}

Convolution Loader::depthwise(const std::string& name, int64_t n, int64_t size) const {
    const auto stored = floats(name + ".weight", {n, 1, size, size});
    std::vector<float> turned(stored.size());
    const int64_t taps = size * size;
    for (int64_t i = 0; i < n; ++i)
        for (int64_t tap = 0; tap < taps; ++tap) turned[tap * n + i] = stored[i * taps + tap];
    Convolution result{.weight = put(turned, {size, size, n}), .bias = {}};
    if (has(name + ".bias")) result.bias = tensor(name + ".bias", {n});
    return result;
}

std::vector<float> Loader::floats(const std::string& name, const Shape& shape) const {
    return weights_.floats(prefix_ + name, shape);
}

Tensor Loader::put(std::span<const float> values, const Shape& shape) const {
    return upload(stream_, values, shape, dtype_);
}

Tensor Loader::put_f32(std::span<const float> values, const Shape& shape) const {
    return upload(stream_, values, shape, DType::f32);
}

Affine Loader::affine(const std::string& name, int64_t n) const {
    return {tensor(name + ".weight", {n}), tensor(name + ".bias", {n})};
}

EncoderBlock load_encoder_block(const Loader& weights, int64_t width, bool with_attention) {
    const int64_t hidden = weights.extent("fc1.weight", 0);
    return {.norm1 = weights.affine("norm1", width),
            .norm2 = weights.affine("norm2", width),
            .qkv = with_attention ? weights.linear("qkv", width, 3 * width) : Linear{},
            .out = with_attention ? weights.linear("out", width, width) : Linear{},
            .fc1 = weights.linear("fc1", width, hidden),
            .fc2 = weights.linear("fc2", hidden, width)};
}

Tensor encoder_mlp(vk::Stream& stream, const EncoderBlock& block, const Tensor& y) {
    const Tensor h =
        linear(stream, layer_norm(stream, y, block.norm2), block.fc1, Activation::gelu);
    return linear_residual(stream, h, block.fc2, y);
}

Tensor finish_encoder_block(vk::Stream& stream, const EncoderBlock& block, const Tensor& x,
                            const Tensor& heads) {
    return encoder_mlp(stream, block, linear_residual(stream, merge_heads(heads), block.out, x));
}

nlohmann::json model_config(const Weights& weights, const std::string& type) {
    const auto found = weights.metadata().find("config");
    require(found != weights.metadata().end(),
            "[model] the weights file has no \"config\" in its metadata, expected that of a model "
            "of type {}",
            type);
    auto config = nlohmann::json::parse(found->second, nullptr, false);
    require(config.is_object(), "[model] \"config\" in the weights' metadata is not a JSON object");
    require(config.value("type", "") == type,
            "[model] weights of type \"{}\" found, \"{}\" expected", config.value("type", ""),
            type);
    return config;
}

Tensor linear(vk::Stream& stream, const Tensor& x, const Linear& layer, Activation activation,
              Activation x_activation) {
    return gemm(stream, x, layer.weight,
                {.bias = layer.bias, .activation = activation, .x_activation = x_activation});
}

Tensor linear_residual(vk::Stream& stream, const Tensor& x, const Linear& layer,
                       const Tensor& residual, const Tensor& gate) {
    return gemm(stream, x, layer.weight, {.bias = layer.bias, .gate = gate, .residual = residual});
}

Tensor layer_norm(vk::Stream& stream, const Tensor& x, const Affine& layer) {
    return layer_norm(stream, x, NormOptions{.weight = layer.weight, .bias = layer.bias});
}

Tensor heads_of(const Tensor& x, int64_t heads, int64_t part, int64_t parts) {
    const int64_t width = x.dim(2) / parts;
    const Tensor own = parts == 1 ? x : x.columns(part * width, width);
    return own.reshape({x.dim(0), x.dim(1), heads, width / heads});
}

Tensor merge_heads(const Tensor& x) {
    return x.reshape({x.dim(0), x.dim(1), x.dim(2) * x.dim(3)});
}

Tensor attend(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
              const Pattern& pattern, AttentionOptions options) {
    options.layout = HeadLayout::tokens_first;
    return attention(stream, q, k, v, pattern, options);
}

}  // namespace fovea
