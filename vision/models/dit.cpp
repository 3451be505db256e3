#include "vision/models/dit.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "backend/error.h"
#include "backend/ops/attention.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/norm.h"
#include "backend/ops/patches.h"
#include "backend/ops/reduce.h"
#include "backend/ops/rope.h"

namespace fovea {
namespace {

constexpr int kTimeFrequencies = 128;

DitConfig parse(const nlohmann::json& json) {
    return {.width = json.at("width"),
            .heads = json.at("heads"),
            .layers = json.at("layers"),
            .hidden = json.at("hidden"),
            .text_width = json.at("text_width"),
            .latent_channels = json.at("latent_channels"),
            .patch = json.at("patch"),
            .rope_axes = json.at("rope_axes"),
            .rope_theta = json.at("rope_theta"),
            .window = json.at("window"),
            .global_layers = json.at("global_layers"),
            .size = json.at("size")};
}

}  // namespace

Dit::Dit(vk::Stream& stream, const Weights& weights, DType dtype)
    : config_(parse(model_config(weights, "dit"))), dtype_(dtype) {
    const int64_t width = config_.width, head_dim = width / config_.heads;
    const int64_t patch_dim = config_.latent_channels * config_.patch * config_.patch;
    const Loader dit(stream, weights, dtype, "dit.");
    patch_ = dit.linear("patch", patch_dim, width);
    time1_ = dit.linear("time.fc1", 2 * kTimeFrequencies, width);
    time2_ = dit.linear("time.fc2", width, width);
    pool_ = dit.linear("pool", config_.text_width, width);
    modulation_ = dit.linear("modulation", width, 6 * width);
    for (int64_t i = 0; i < config_.layers; ++i) {
        const Loader b = dit.at("blocks." + std::to_string(i));
        blocks_.push_back({.table = b.tensor("table", {6, width}),
                           .qkv = b.linear("qkv", width, 3 * width),
                           .out = b.linear("out", width, width),
                           .q_norm = b.tensor("q_norm.weight", {head_dim}),
                           .k_norm = b.tensor("k_norm.weight", {head_dim}),
                           .cross_norm = b.tensor("cross_norm.weight", {width}),
                           .cross_q = b.linear("cross_q", width, width),
                           .cross_kv = b.linear("cross_kv", config_.text_width, 2 * width),
                           .cross_out = b.linear("cross_out", width, width),
                           .cross_q_norm = b.tensor("cross_q_norm.weight", {head_dim}),
                           .cross_k_norm = b.tensor("cross_k_norm.weight", {head_dim}),
                           .fc1 = b.linear("fc1", width, config_.hidden),
                           .fc2 = b.linear("fc2", config_.hidden, width)});
    }
    final_ = dit.linear("final", width, patch_dim);
    final_table_ = dit.tensor("final.table", {2, width});
}

Dit::Context Dit::context(vk::Stream& stream, const Tensor& text) const {
    require(text.rank() == 3 && text.dim(2) == config_.text_width,
            "[dit] text states are (batch, length, {}), found {}", config_.text_width,
            to_string(text.shape()));
    Context context{
        .pooled = linear(stream, mean_tokens(stream, text), pool_), .keys = {}, .values = {}};
    for (const auto& b : blocks_) {
        const Tensor kv = linear(stream, text, b.cross_kv);
        context.keys.push_back(
            rms_norm(stream, heads_of(kv, config_.heads, 0, 2), {.weight = b.cross_k_norm}));
        context.values.push_back(heads_of(kv, config_.heads, 1, 2));
    }
    return context;
}

std::vector<Pattern> Dit::patterns(int64_t rows, int64_t columns) const {
    const auto& global = config_.global_layers;
    const auto side = [&](int64_t extent) {
        return static_cast<uint32_t>(std::min(config_.window, extent));
    };
    const Grid grid{.shape = {static_cast<uint32_t>(rows), static_cast<uint32_t>(columns)}};
    const Pattern everything = dense();
    const Pattern window = neighborhood(grid, {.window = {side(rows), side(columns)}});
    std::vector<Pattern> result;
    for (int64_t i = 0; i < config_.layers; ++i)
        result.push_back(std::find(global.begin(), global.end(), i) != global.end() ? everything
                                                                                    : window);
    return result;
}

Tensor Dit::time_embedding(vk::Stream& stream, float t) const {
    std::vector<float> features(2 * kTimeFrequencies);
    for (int i = 0; i < kTimeFrequencies; ++i) {
        const double angle =
            1000.0 * t * std::pow(10000.0, -static_cast<double>(i) / kTimeFrequencies);
        features[i] = static_cast<float>(std::cos(angle));
        features[kTimeFrequencies + i] = static_cast<float>(std::sin(angle));
    }
    const Tensor e = upload(stream, features, {1, 2 * kTimeFrequencies}, dtype_);
    return linear(stream, linear(stream, e, time1_, Activation::silu), time2_);
}

// modulation (6, batch, width): shift, scale, gate of attention, then of the MLP.
Tensor Dit::block(vk::Stream& stream, const Block& b, const Tensor& x, const Tensor& modulation,
                  const Tensor& keys, const Tensor& values, const std::array<int64_t, 3>& grid,
                  const Pattern& pattern) const {
    const RopeOptions positions{.axes = config_.rope_axes,
                                .grid = grid,
                                .theta = config_.rope_theta,
                                .norm_weight = {},
                                .layout = HeadLayout::tokens_first};
    RopeOptions q_rope = positions, k_rope = positions;
    q_rope.norm_weight = b.q_norm;
    k_rope.norm_weight = b.k_norm;

    Tensor h = layer_norm(stream, x, {.shift = modulation.index(0), .scale = modulation.index(1)});
    const Tensor qkv = linear(stream, h, b.qkv);
    const auto part = [&](int64_t i) { return heads_of(qkv, config_.heads, i, 3); };
    const Tensor q = rope(stream, part(0), q_rope);
    const Tensor k = rope(stream, part(1), k_rope);
    h = merge_heads(attend(stream, q, k, part(2), pattern));
    Tensor y = linear_residual(stream, h, b.out, x, modulation.index(2));

    h = rms_norm(stream, y, {.weight = b.cross_norm});
    const Tensor cross = heads_of(linear(stream, h, b.cross_q), config_.heads);
    h = attend(stream, rms_norm(stream, cross, {.weight = b.cross_q_norm}), keys, values, dense());
    y = linear_residual(stream, merge_heads(h), b.cross_out, y);

    h = layer_norm(stream, y, {.shift = modulation.index(3), .scale = modulation.index(4)});
    h = linear(stream, h, b.fc1, Activation::gelu);
    return linear_residual(stream, h, b.fc2, y, modulation.index(5));
}

Tensor Dit::forward(vk::Stream& stream, const Tensor& z, float t, const Context& context,
                    std::span<const Pattern> patterns) const {
    require(z.rank() == 4 && z.dim(3) == config_.latent_channels && z.dim(1) % config_.patch == 0 &&
                z.dim(2) % config_.patch == 0,
            "[dit] latents are (batch, height, width, {}) with sides that are multiples of {}, "
            "found {}",
            config_.latent_channels, config_.patch, to_string(z.shape()));
    require(z.dim(0) == context.pooled.dim(0), "[dit] {} latents, but text for {}", z.dim(0),
            context.pooled.dim(0));
    require(patterns.size() == blocks_.size(), "[dit] {} patterns for {} layers", patterns.size(),
            blocks_.size());
    const std::array<int64_t, 3> grid{1, z.dim(1) / config_.patch, z.dim(2) / config_.patch};
    const int64_t width = config_.width;

    const Tensor c = add(stream, context.pooled, time_embedding(stream, t).reshape({width}));
    const Tensor m = linear(stream, c, modulation_, Activation::none, Activation::silu);
    Tensor x = linear(stream, patchify(stream, z, static_cast<int>(config_.patch)), patch_);
    for (size_t i = 0; i < blocks_.size(); ++i) {
        const Tensor modulation =
            broadcast_add(stream, blocks_[i].table, m.reshape({z.dim(0), 6, width}));
        x = block(stream, blocks_[i], x, modulation, context.keys[i], context.values[i], grid,
                  patterns[i]);
    }
    const Tensor last = broadcast_add(stream, final_table_, c);
    x = layer_norm(stream, x, {.shift = last.index(0), .scale = last.index(1)});
    return unpatchify(stream, linear(stream, x, final_), z.dim(1), z.dim(2),
                      static_cast<int>(config_.patch));
}

}  // namespace fovea
