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
            .size = json.at("size"),
            .frames = json.value("frames", int64_t{0}),
            .fps = json.value("fps", int64_t{0}),
            .clip_size = json.value("clip_size", int64_t{0}),
            .frame_range = json.value("frame_range", std::array<int64_t, 2>{}),
            .clip_shift = json.value("clip_shift", 1.0f)};
}

// Rows [first, first + count) of x once more, behind the others.
Tensor with_copies(vk::Stream& stream, const Tensor& x, int64_t first, int64_t count) {
    Shape shape = x.shape();
    shape[0] += count;
    const Tensor y = empty(stream.device(), shape, x.dtype());
    stream.copy(read(x), write(y.slice(0, x.dim(0))));
    stream.copy(read(x.slice(first, count)), write(y.slice(x.dim(0), count)));
    return y;
}

void validate(const std::vector<DitBranch>& branches, int64_t batch, int64_t texts,
              int64_t layers) {
    int64_t rows = batch, layer = 0;
    for (const DitBranch& branch : branches) {
        require(branch.layer >= layer && branch.layer < layers && branch.first >= 0 &&
                    branch.count > 0 && branch.first + branch.count <= batch,
                "[dit] branches of some of {} samples, of {} layers ascending, expected, found "
                "rows {} to {} from layer {}",
                batch, layers, branch.first, branch.first + branch.count, branch.layer);
        layer = branch.layer;
        rows += branch.count;
    }
    require(rows == texts, "[dit] {} latents, {} with branches, but text for {}", batch, rows,
            texts);
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

DitHooks hooks_by(std::vector<Pattern> patterns) {
    const auto attention = [patterns = std::move(patterns)](
                               vk::Stream& stream, int64_t layer, const Tensor& q, const Tensor& k,
                               const Tensor& v, const Tensor& strengths) {
        require(layer < std::ssize(patterns), "[dit] {} patterns, but layer {} runs",
                patterns.size(), layer);
        return attend(stream, q, k, v, patterns[static_cast<size_t>(layer)],
                      {.perturb = strengths});
    };
    return {.attention = [attention](
                             vk::Stream& stream, int64_t layer, const Tensor& q, const Tensor& k,
                             const Tensor& v) { return attention(stream, layer, q, k, v, {}); },
            .perturbed = attention};
}

DitHooks::Attention attention_by(std::vector<Pattern> patterns) {
    return hooks_by(std::move(patterns)).attention;
}

std::vector<Pattern> Dit::patterns(const DitGrid& grid) const {
    const Pattern everything = dense();
    const auto layers = static_cast<size_t>(config_.layers);
    if (grid[0] > 1) return std::vector<Pattern>(layers, everything);
    const auto& global = config_.global_layers;
    const auto side = [&](int64_t extent) {
        return static_cast<uint32_t>(std::min(config_.window, extent));
    };
    const Pattern window =
        neighborhood({.shape = {static_cast<uint32_t>(grid[1]), static_cast<uint32_t>(grid[2])}},
                     {.window = {side(grid[1]), side(grid[2])}});
    std::vector<Pattern> result(layers, window);
    for (const int64_t layer : global) {
        require(layer >= 0 && layer < config_.layers, "[dit] global layer {} of {} layers", layer,
                config_.layers);
        result[static_cast<size_t>(layer)] = everything;
    }
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

Tensor Dit::modulation(vk::Stream& stream, const Pass& pass, int64_t layer, int64_t rows) const {
    return broadcast_add(stream, blocks_[static_cast<size_t>(layer)].table,
                         pass.modulation.slice(0, rows));
}

Tensor Dit::block(vk::Stream& stream, const Pass& pass, int64_t layer, const Tensor& x) const {
    const auto index = static_cast<size_t>(layer);
    const Block& b = blocks_[index];
    const int64_t rows = x.dim(0);
    const Tensor m = modulation(stream, pass, layer, rows);
    // x plus what `add` makes of x normed.
    const auto part = [&](DitPart::Kind kind, const Tensor& from, const auto& norm,
                          const auto& add) {
        const auto compute = [&] { return add(norm(), from); };
        return pass.hooks.part ? pass.hooks.part(stream, {.kind = kind,
                                                          .layer = layer,
                                                          .x = from,
                                                          .modulated = norm,
                                                          .compute = compute})
                               : compute();
    };
    const auto attention = [&](const Tensor& h, const Tensor& from) {
        RopeOptions q_rope{.axes = config_.rope_axes,
                           .grid = pass.grid,
                           .theta = config_.rope_theta,
                           .norm_weight = b.q_norm,
                           .layout = HeadLayout::tokens_first};
        RopeOptions k_rope = q_rope;
        k_rope.norm_weight = b.k_norm;
        const Tensor qkv = linear(stream, h, b.qkv);
        const auto third = [&](int64_t i) { return heads_of(qkv, config_.heads, i, 3); };
        const Tensor q = rope(stream, third(0), q_rope), k = rope(stream, third(1), k_rope);
        const Tensor o = pass.hooks.attention(stream, layer, q, k, third(2));
        return linear_residual(stream, merge_heads(o), b.out, from, m.index(2));
    };
    const auto cross = [&](const Tensor& h, const Tensor& from) {
        const Tensor q = rms_norm(stream, heads_of(linear(stream, h, b.cross_q), config_.heads),
                                  {.weight = b.cross_q_norm});
        const Tensor k = pass.context.keys[index].slice(0, rows),
                     v = pass.context.values[index].slice(0, rows);
        const Tensor o = pass.hooks.cross ? pass.hooks.cross(stream, layer, q, k, v)
                                          : attend(stream, q, k, v, dense());
        return linear_residual(stream, merge_heads(o), b.cross_out, from);
    };
    const auto mlp = [&](const Tensor& h, const Tensor& from) {
        return linear_residual(stream, linear(stream, h, b.fc1, Activation::gelu), b.fc2, from,
                               m.index(5));
    };
    const auto modulated = [&](const Tensor& from, int64_t shift) {
        return [&, shift] {
            return layer_norm(stream, from, {.shift = m.index(shift), .scale = m.index(shift + 1)});
        };
    };

    Tensor y = part(DitPart::Kind::attention, x, modulated(x, 0), attention);
    y = part(
        DitPart::Kind::cross, y, [&] { return rms_norm(stream, y, {.weight = b.cross_norm}); },
        cross);
    return part(DitPart::Kind::mlp, y, modulated(y, 3), mlp);
}

Tensor Dit::layer(vk::Stream& stream, const Pass& pass, int64_t layer, const Tensor& x) const {
    struct Rows {
        int64_t begin, count;
    };
    std::vector<Rows> skipping;
    int64_t begin = x.dim(0);
    for (const DitBranch& branch : pass.hooks.branches)
        if (branch.layer <= layer) begin -= branch.count;
    int64_t run = begin;  // end of the last that runs
    for (const DitBranch& branch : pass.hooks.branches) {
        if (branch.layer > layer) break;
        const auto& skipped = branch.skipped;
        if (std::find(skipped.begin(), skipped.end(), layer) == skipped.end())
            run = begin + branch.count;
        else
            skipping.push_back({begin, branch.count});
        begin += branch.count;
    }
    if (skipping.empty()) return block(stream, pass, layer, x);
    const Tensor some = block(stream, pass, layer, x.slice(0, run));
    const Tensor y = empty(stream.device(), x.shape(), x.dtype());
    stream.copy(read(some), write(y.slice(0, run)));
    for (const Rows& r : skipping)
        stream.copy(read(x.slice(r.begin, r.count)), write(y.slice(r.begin, r.count)));
    return y;
}

DitGrid Dit::grid(const Shape& z) const {
    const size_t rank = z.size();
    require((rank == 4 || rank == 5) && z[rank - 1] == config_.latent_channels &&
                z[rank - 3] % config_.patch == 0 && z[rank - 2] % config_.patch == 0,
            "[dit] latents are (batch, height, width, {0}) or (batch, frames, height, width, {0}) "
            "with sides that are multiples of {1}, found {2}",
            config_.latent_channels, config_.patch, to_string(z));
    return {rank == 5 ? z[1] : 1, z[rank - 3] / config_.patch, z[rank - 2] / config_.patch};
}

Tensor Dit::forward(vk::Stream& stream, const Tensor& z, float t, const Context& context,
                    const DitHooks& hooks) const {
    const DitGrid grid = this->grid(z.shape());
    const int64_t batch = z.dim(0), width = config_.width, patch = config_.patch;
    const int64_t rows_of_all = context.pooled.dim(0);
    validate(hooks.branches, batch, rows_of_all, config_.layers);

    const Tensor c = add(stream, context.pooled, time_embedding(stream, t).reshape({width}));
    const Tensor m = linear(stream, c, modulation_, Activation::none, Activation::silu);
    Pass pass{.context = context,
              .grid = grid,
              .hooks = hooks,
              .modulation = m.reshape({rows_of_all, 6, width})};
    if (!hooks.attention) pass.hooks.attention = attention_by(patterns(grid));

    // Patches lie within a frame, and frames follow one another: to them a clip is a larger batch.
    const int64_t rows = grid[1] * patch, columns = grid[2] * patch;
    const Tensor frames = z.reshape({batch * grid[0], rows, columns, config_.latent_channels});
    const Tensor patches = patchify(stream, frames, static_cast<int>(patch));
    Tensor x = linear(stream, patches.reshape({batch, grid[0] * grid[1] * grid[2], patches.dim(2)}),
                      patch_);

    // Those that leave at once are there before any hook is asked.
    auto branch = hooks.branches.begin();
    const auto leave = [&](const Tensor& from, int64_t layer) {
        Tensor all = from;
        for (; branch != hooks.branches.end() && branch->layer == layer; ++branch)
            all = with_copies(stream, all, branch->first, branch->count);
        return all;
    };
    x = leave(x, 0);
    const auto blocks = [&] {
        Tensor y = x;
        for (int64_t i = 0; i < config_.layers; ++i) y = layer(stream, pass, i, leave(y, i));
        return y;
    };
    const auto modulated = [&] {
        const Tensor first = modulation(stream, pass, 0, x.dim(0));
        return layer_norm(stream, x, {.shift = first.index(0), .scale = first.index(1)});
    };
    Tensor y = hooks.part ? hooks.part(stream, {.kind = DitPart::Kind::blocks,
                                                .layer = 0,
                                                .x = x,
                                                .modulated = modulated,
                                                .compute = blocks})
                          : blocks();
    const Tensor last = broadcast_add(stream, final_table_, c);
    y = layer_norm(stream, y, {.shift = last.index(0), .scale = last.index(1)});
    y = linear(stream, y, final_);
    Shape velocity = z.shape();
    velocity[0] = y.dim(0);
    y = y.reshape({y.dim(0) * grid[0], patches.dim(1), patches.dim(2)});
    return unpatchify(stream, y, rows, columns, static_cast<int>(patch)).reshape(velocity);
}

}  // namespace fovea
