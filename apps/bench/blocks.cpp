#include "apps/bench/blocks.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/ops/attention.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/noise.h"
#include "backend/ops/norm.h"
#include "backend/ops/patches.h"
#include "backend/ops/rope.h"

namespace fovea::apps::bench {
namespace {

constexpr int64_t kTimeFeatures = 256, kLatentChannels = 4, kPatch = 2;
constexpr uint64_t kSeed = 6;

class Random {
  public:
    Random(vk::Stream& stream, DType dtype, uint32_t first) : stream_(stream), dtype_(dtype) {
        next_ = first;
    }

    Tensor tensor(const Shape& shape, float deviation = 1) {
        return linear_combination(stream_,
                                  {{deviation, noise(stream_, shape, kSeed, next_++, dtype_)}});
    }
    Tensor near_one(int64_t n) {
        const std::vector<float> ones(static_cast<size_t>(n), 1.0f);
        return add(stream_, tensor({n}, 0.1f), upload(stream_, ones, {n}, dtype_));
    }
    /// `rows` go through it in a run.
    void layer(BlockWeights& weights, const std::string& name, int64_t rows, int64_t in,
               int64_t out, bool bias = true) {
        Linear layer{tensor({in, out}, 1 / std::sqrt(static_cast<float>(in))), {}};
        if (bias) layer.bias = tensor({out}, 0.1f);
        weights.flops += 2.0 * static_cast<double>(rows * in) * static_cast<double>(out);
        weights.bytes += static_cast<double>(layer.weight.bytes());
        weights.layers[name] = layer;
    }

  private:
    vk::Stream& stream_;
    DType dtype_;
    uint32_t next_;
};

/// Numbers of noise streams, so that no two tensors of a set or of two sets are alike.
uint32_t stream_of(uint32_t number, uint32_t part) {
    return number << 16 | part << 12;
}

RopeOptions positions_of(const ModelShape& s, const Tensor& norm_weight = {}) {
    RopeOptions options{.axes = s.rope_axes,
                        .grid = {1, 1, 1},
                        .theta = s.rope_theta,
                        .norm_weight = norm_weight,
                        .layout = HeadLayout::tokens_first};
    std::copy(s.grid.rbegin(), s.grid.rend(), options.grid.rbegin());
    return options;
}

/// condition (1, width) → (parts, 1, width)
Tensor modulation(vk::Stream& stream, const Tensor& condition, const Linear& layer, int64_t parts) {
    return linear(stream, condition, layer, Activation::none, Activation::silu)
        .reshape({parts, 1, condition.dim(-1)});
}

/// Row `first` of m is the shift, the next the scale.
Tensor modulated(vk::Stream& stream, const Tensor& x, const Tensor& m, int64_t first) {
    return layer_norm(stream, x, NormOptions{.shift = m.index(first), .scale = m.index(first + 1)});
}

Tensor mlp(vk::Stream& stream, const BlockWeights& w, const std::string& of, const Tensor& x,
           const Tensor& m) {
    const Tensor h =
        linear(stream, modulated(stream, x, m, 3), w.layer(of + "fc1"), Activation::gelu);
    return linear_residual(stream, h, w.layer(of + "fc2"), x, m.index(5));
}

/// m: modulation(), (6, 1, width)
Tensor dit_block(vk::Stream& stream, const ModelShape& s, const BlockWeights& w, const Tensor& x,
                 const Tensor& m, const Pattern& pattern, Trace* trace) {
    const Tensor qkv = linear(stream, modulated(stream, x, m, 0), w.layer("qkv"));
    const Tensor k = heads_of(qkv, s.heads, 1, 3), v = heads_of(qkv, s.heads, 2, 3);
    const Tensor o = attend(stream, heads_of(qkv, s.heads, 0, 3), k, v, pattern);
    if (trace) trace->self = {k, v, {}, {}, o, {}};
    const Tensor y = linear_residual(stream, merge_heads(o), w.layer("out"), x, m.index(2));
    return mlp(stream, w, "", y, m);
}

// Wan's RMS norm goes over all heads of a token at once, so q and k are products of their own.
Tensor wan_block(vk::Stream& stream, const ModelShape& s, const BlockWeights& w, const Tokens& x,
                 const Tensor& condition, const Pattern& pattern, Trace* trace) {
    const Tensor m =
        add(stream, condition, w.vector("modulation")).reshape({6, 1, condition.dim(-1)});
    const auto heads = [&](const Tensor& from, const std::string& name) {
        Tensor y = linear(stream, from, w.layer(name));
        if (w.vectors.contains(name + "_norm"))
            y = rms_norm(stream, y, {.weight = w.vector(name + "_norm")});
        return heads_of(y, s.heads);
    };
    Tensor h = modulated(stream, x.image, m, 0);
    const Tensor q = rope(stream, heads(h, "q"), positions_of(s));
    const Tensor k = rope(stream, heads(h, "k"), positions_of(s));
    const Tensor v = heads(h, "v");
    Tensor o = attend(stream, q, k, v, pattern);
    if (trace) trace->self = {k, v, {}, {}, o, {}};
    Tensor y = linear_residual(stream, merge_heads(o), w.layer("out"), x.image, m.index(2));

    h = layer_norm(stream, y, Affine{w.vector("cross_norm"), w.vector("cross_norm_bias")});
    const Tensor cross_k = heads(x.text, "cross_k"), cross_v = heads(x.text, "cross_v");
    o = attend(stream, heads(h, "cross_q"), cross_k, cross_v, dense());
    if (trace) trace->cross = {cross_k, cross_v, {}, {}, o, {}};
    y = linear_residual(stream, merge_heads(o), w.layer("cross_out"), y);
    return mlp(stream, w, "", y, m);
}

struct Heads {
    Tensor q, k, v;  ///< (1, tokens, heads, head_dim)
};

/// Normed a head; the grid's tokens are rotated too, text stands at position 0.
Heads normed_heads(vk::Stream& stream, const ModelShape& s, const BlockWeights& w,
                   const std::string& of, const Tensor& qkv, bool on_grid) {
    const auto normed = [&](int64_t part, const char* name) {
        const Tensor &weight = w.vector(of + name), x = heads_of(qkv, s.heads, part, 3);
        return on_grid ? rope(stream, x, positions_of(s, weight))
                       : rms_norm(stream, x, {.weight = weight});
    };
    return {normed(0, "q_norm"), normed(1, "k_norm"), heads_of(qkv, s.heads, 2, 3)};
}

/// One softmax over the grid's keys that the pattern keeps and the text's, merged: no
/// concatenation, the text's keys are extra ones.
Tokens joint_attention(vk::Stream& stream, const Heads& image, const Heads& text,
                       const Pattern& pattern, Trace* trace) {
    AttentionOptions options;
    options.k_extra = text.k;
    options.v_extra = text.v;
    const Tensor o = attend(stream, image.q, image.k, image.v, pattern, options);
    const Tensor text_o = attend(stream, text.q, image.k, image.v, dense(), options);
    if (trace) trace->self = {image.k, image.v, text.k, text.v, o, text_o};
    return {merge_heads(o), merge_heads(text_o)};
}

Tokens dual_block(vk::Stream& stream, const ModelShape& s, const BlockWeights& w, const Tokens& x,
                  const Tensor& condition, const Pattern& pattern, Trace* trace) {
    const Tensor m = modulation(stream, condition, w.layer("modulation"), 6);
    const Tensor text_m = modulation(stream, condition, w.layer("text_modulation"), 6);
    const auto heads = [&](const std::string& of, const Tensor& from, const Tensor& by) {
        const Tensor qkv = linear(stream, modulated(stream, from, by, 0), w.layer(of + "qkv"));
        return normed_heads(stream, s, w, of, qkv, of.empty());
    };
    const Tokens o = joint_attention(stream, heads("", x.image, m), heads("text_", x.text, text_m),
                                     pattern, trace);
    const auto finish = [&](const std::string& of, const Tensor& from, const Tensor& attended,
                            const Tensor& by) {
        const Tensor y = linear_residual(stream, attended, w.layer(of + "out"), from, by.index(2));
        return mlp(stream, w, of, y, by);
    };
    return {finish("", x.image, o.image, m), finish("text_", x.text, o.text, text_m)};
}

/// Tokens begin … begin + count − 1 of x (1, tokens, width), a view.
Tensor tokens_of(const Tensor& x, int64_t begin, int64_t count) {
    return x.index(0).slice(begin, count).reshape({1, count, x.dim(2)});
}

// The model's output product of (attention, MLP) side by side is taken as the sum of two.
Tensor single_block(vk::Stream& stream, const ModelShape& s, const BlockWeights& w, const Tensor& x,
                    const Tensor& condition, const Pattern& pattern, Trace* trace) {
    const int64_t image = s.tokens(), text = s.text;
    const Tensor m = modulation(stream, condition, w.layer("modulation"), 3);
    const Tensor h = modulated(stream, x, m, 0);
    const Tensor qkv = linear(stream, h, w.layer("qkv"));
    const Tokens o = joint_attention(
        stream, normed_heads(stream, s, w, "", tokens_of(qkv, 0, image), true),
        normed_heads(stream, s, w, "", tokens_of(qkv, image, text), false), pattern, trace);
    const Tensor joint = empty(stream.device(), x.shape(), x.dtype());
    stream.copy(read(o.image), write(tokens_of(joint, 0, image)));
    stream.copy(read(o.text), write(tokens_of(joint, image, text)));
    const Tensor y = linear_residual(stream, joint, w.layer("out"), x, m.index(2));
    const Tensor hidden = linear(stream, h, w.layer("fc1"), Activation::gelu);
    return linear_residual(stream, hidden, w.layer("fc2"), y, m.index(2));
}

}  // namespace

BlockWeights random_block(vk::Stream& stream, const ModelShape& s, DType dtype, uint32_t number) {
    Random random(stream, dtype, stream_of(number, 0));
    BlockWeights w;
    const int64_t width = s.width(), text = s.text;
    const int64_t rows = s.tokens() + (s.kind == BlockKind::single ? text : 0);
    const auto mlp_layers = [&](const std::string& of, int64_t count) {
        random.layer(w, of + "fc1", count, width, s.hidden);
        // The bias of single's one output product is that of "out".
        random.layer(w, of + "fc2", count, s.hidden, width, s.kind != BlockKind::single);
    };
    const auto attention_layers = [&](const std::string& of, int64_t count) {
        random.layer(w, of + "modulation", 1, width, (s.kind == BlockKind::single ? 3 : 6) * width);
        random.layer(w, of + "qkv", count, width, 3 * width);
        random.layer(w, of + "out", count, width, width);
        if (s.kind == BlockKind::dit) return;
        w.vectors[of + "q_norm"] = random.near_one(s.head_dim);
        w.vectors[of + "k_norm"] = random.near_one(s.head_dim);
    };
    mlp_layers("", rows);
    if (s.kind != BlockKind::wan) attention_layers("", rows);
    if (s.kind == BlockKind::dual) {
        attention_layers("text_", text);
        mlp_layers("text_", text);
    }
    if (s.kind == BlockKind::wan) {
        w.vectors["modulation"] = random.tensor({6, width});
        for (const char* name : {"q", "k", "v", "out", "cross_q", "cross_out"})
            random.layer(w, name, rows, width, width);
        for (const char* name : {"cross_k", "cross_v"}) random.layer(w, name, text, width, width);
        for (const char* name : {"q_norm", "k_norm", "cross_q_norm", "cross_k_norm", "cross_norm"})
            w.vectors[name] = random.near_one(width);
        w.vectors["cross_norm_bias"] = random.tensor({width}, 0.1f);
    }
    return w;
}

Tokens random_tokens(vk::Stream& stream, const ModelShape& s, DType dtype, uint32_t number) {
    Random random(stream, dtype, stream_of(number, 1));
    const int64_t tokens = s.tokens();
    if (s.kind == BlockKind::single) return {random.tensor({1, tokens + s.text, s.width()}), {}};
    const Tensor image = random.tensor({1, tokens, s.width()});
    return {image, s.text > 0 ? random.tensor({1, s.text, s.width()}) : Tensor()};
}

Tensor random_condition(vk::Stream& stream, const ModelShape& s, DType dtype, uint32_t number) {
    Random random(stream, dtype, stream_of(number, 2));
    return random.tensor({s.kind == BlockKind::wan ? 6 : 1, s.width()});
}

Tokens run_block(vk::Stream& stream, const ModelShape& s, const BlockWeights& w, const Tokens& x,
                 const Tensor& condition, const Pattern& pattern, Trace* trace) {
    Tokens y{{}, x.text};
    switch (s.kind) {
        case BlockKind::dit:
            y.image =
                dit_block(stream, s, w, x.image,
                          modulation(stream, condition, w.layer("modulation"), 6), pattern, trace);
            break;
        case BlockKind::wan:
            y.image = wan_block(stream, s, w, x, condition, pattern, trace);
            break;
        case BlockKind::dual:
            y = dual_block(stream, s, w, x, condition, pattern, trace);
            break;
        case BlockKind::single:
            y.image = single_block(stream, s, w, x.image, condition, pattern, trace);
            break;
    }
    if (trace) {
        trace->in = x;
        trace->out = y;
    }
    return y;
}

Denoiser random_denoiser(vk::Stream& stream, const ModelShape& s, DType dtype, uint32_t number) {
    const int64_t width = s.width(), tokens = s.tokens(), patch = kPatch * kPatch;
    Denoiser model;
    for (uint32_t i = 0; i < s.layers; ++i)
        model.blocks.push_back(random_block(stream, s, dtype, number + 1 + i));
    Random random(stream, dtype, stream_of(number, 3));
    random.layer(model.ends, "patch", tokens, kLatentChannels * patch, width);
    random.layer(model.ends, "time1", 1, kTimeFeatures, width);
    random.layer(model.ends, "time2", 1, width, width);
    random.layer(model.ends, "final_modulation", 1, width, 2 * width);
    random.layer(model.ends, "final", tokens, width, 2 * kLatentChannels * patch);
    model.ends.vectors["positions"] = random.tensor({tokens, width});
    model.latent = random.tensor(
        {1, kPatch * int64_t{s.grid[0]}, kPatch * int64_t{s.grid[1]}, kLatentChannels});
    model.time = random.tensor({1, kTimeFeatures});
    model.label = random.tensor({1, width});
    return model;
}

Tensor run_denoiser(vk::Stream& stream, const ModelShape& s, const Denoiser& model,
                    const Pattern& pattern, DenoiserTrace* trace) {
    const BlockWeights& ends = model.ends;
    const Tensor time = linear(stream, model.time, ends.layer("time1"), Activation::silu);
    const Tensor condition = linear_residual(stream, time, ends.layer("time2"), model.label);
    Tensor x = linear(stream, patchify(stream, model.latent, kPatch), ends.layer("patch"));
    x = add(stream, x, ends.vector("positions"));
    if (trace) *trace = {condition, std::vector<Trace>(model.blocks.size())};
    // They wait for no tokens: side by side they read weights at the pace of memory, which a row
    // times a matrix alone does not.
    std::vector<Tensor> modulations;
    for (const BlockWeights& w : model.blocks)
        modulations.push_back(modulation(stream, condition, w.layer("modulation"), 6));
    for (size_t i = 0; i < model.blocks.size(); ++i) {
        Trace* of = trace ? &trace->blocks[i] : nullptr;
        const Tensor y = dit_block(stream, s, model.blocks[i], x, modulations[i], pattern, of);
        if (of) {
            of->in = {x, {}};
            of->out = {y, {}};
        }
        x = y;
    }
    const Tensor m = modulation(stream, condition, ends.layer("final_modulation"), 2);
    x = linear(stream, modulated(stream, x, m, 0), ends.layer("final"));
    return unpatchify(stream, x, model.latent.dim(1), model.latent.dim(2), kPatch);
}

}  // namespace fovea::apps::bench
