#include "vision/models/segment_decoder.h"

#include <cmath>
#include <numbers>
#include <string>

#include "backend/error.h"
#include "backend/ops/conv2d.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/gemm.h"
#include "backend/ops/patches.h"
#include "backend/ops/permute.h"

namespace fovea {
namespace {

constexpr float kMaskLimit = 8, kMatchLimit = 4;

// Sines and cosines of a place, `width` numbers behind the others.
void add_position(std::vector<float>& values, double x, double y, int64_t width) {
    const int64_t count = width / 4;
    for (const double along : {x, y})
        for (const bool cosine : {false, true})
            for (int64_t j = 0; j < count; ++j) {
                const double frequency =
                    0.25 * std::exp2(8.0 * static_cast<double>(j) / static_cast<double>(count - 1));
                const double angle = 2 * std::numbers::pi * along * frequency;
                values.push_back(static_cast<float>(cosine ? std::cos(angle) : std::sin(angle)));
            }
}

// Of the tokens' centres.
std::vector<float> places(int64_t rows, int64_t columns, int64_t width) {
    std::vector<float> values;
    values.reserve(static_cast<size_t>(rows * columns * width));
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t column = 0; column < columns; ++column)
            add_position(values, (static_cast<double>(column) + 0.5) / static_cast<double>(columns),
                         (static_cast<double>(row) + 0.5) / static_cast<double>(rows), width);
    return values;
}

// One entry of the first axis, `count` times.
Tensor repeated(vk::Stream& stream, const Tensor& x, int64_t count) {
    Shape shape = x.shape();
    shape[0] = count;
    return strided_copy(stream, x, shape, {0, x.dim(2), 1});
}

}  // namespace

Mlp load_mlp(const Loader& weights, int64_t in, int64_t out) {
    const int64_t hidden = weights.extent("fc1.weight", 0);
    return {weights.linear("fc1", in, hidden), weights.linear("fc2", hidden, out)};
}

Tensor run(vk::Stream& stream, const Mlp& mlp, const Tensor& x) {
    return linear(stream, linear(stream, x, mlp.fc1, Activation::gelu), mlp.fc2);
}

Tensor mask_patches(vk::Stream& stream, const Tensor& logits) {
    const Tensor limited = linear_combination(
        stream, {{.coefficient = 1 / kMaskLimit, .x = soft_clamp(stream, logits, kMaskLimit)}});
    return patchify(stream, limited.reshape({logits.dim(0), logits.dim(1), logits.dim(2), 1}), 4);
}

SegmentDecoder::Attention SegmentDecoder::load_attention(const Loader& weights,
                                                         int64_t inner) const {
    const int64_t width = config_.width;
    return {weights.linear("q", width, inner), weights.linear("k", width, inner),
            weights.linear("v", width, inner), weights.linear("out", inner, width)};
}

SegmentDecoder::SegmentDecoder(vk::Stream& stream, const Weights& weights, DType dtype)
    : config_(SegmentConfig::read(weights)), dtype_(dtype) {
    const int64_t width = config_.width, inner = config_.decoder_width;
    const auto [first, second] = config_.upscale;
    types_ = weights.floats("segment.prompt.types", {4, width});
    outputs_ = weights.floats("segment.prompt.outputs", {1 + config_.masks, width});
    const Loader segment(stream, weights, dtype, "segment.");
    no_mask_ = segment.tensor("prompt.no_mask", {width});
    matched_ = segment.tensor("prompt.matched", {width}).reshape({1, width});
    text_ = load_mlp(segment.at("text"), config_.text_width, width);
    mask_ = load_mlp(segment.at("mask"), 16, width);
    score_ = load_mlp(segment.at("score"), width, config_.masks + 1);
    match_picture_ = segment.linear("match.picture", width, config_.match_width);
    match_text_ = segment.linear("match.text", config_.text_width, config_.match_width);
    for (int64_t i = 0; i < config_.decoder_layers; ++i) {
        const Loader l = segment.at("decoder." + std::to_string(i));
        layers_.push_back(
            {.norms = {l.affine("norm1", width), l.affine("norm2", width), l.affine("norm3", width),
                       l.affine("norm4", width)},
             .picture_norms = {l.affine("picture_norm1", width), l.affine("picture_norm2", width)},
             .self_attention = load_attention(l.at("self_attention"), width),
             .to_picture = load_attention(l.at("to_picture"), inner),
             .to_tokens = load_attention(l.at("to_tokens"), inner),
             .mlp = load_mlp(l, width, width)});
    }
    last_norm_ = segment.affine("last_norm", width);
    picture_norm_ = segment.affine("picture_norm", width);
    out_norm_ = segment.affine("out_norm", width);
    last_ = load_attention(segment.at("last"), inner);
    up1_ = segment.linear("up1", width, 4 * first);
    up2_ = segment.linear("up2", first, 4 * second);
    refine_ = segment.convolution("refine", second, second, 3);
    for (int64_t i = 0; i < config_.masks; ++i)
        hyper_.push_back(load_mlp(segment.at("hyper." + std::to_string(i)), width, second));
}

Tensor SegmentDecoder::attend(vk::Stream& stream, const Attention& layer, const Tensor& q,
                              const Tensor& k, const Tensor& v, const Tensor& residual) const {
    const auto heads = [&](const Tensor& x, const Linear& to) {
        return heads_of(linear(stream, x, to), config_.heads);
    };
    const Tensor o =
        fovea::attend(stream, heads(q, layer.q), heads(k, layer.k), heads(v, layer.v), dense());
    return linear_residual(stream, merge_heads(o), layer.out, residual);
}

Tensor SegmentDecoder::prompt_tokens(vk::Stream& stream, const SegmentPrompts& prompts) const {
    const int64_t width = config_.width, outputs = 1 + config_.masks, count = prompts.count;
    const auto all_points = static_cast<int64_t>(prompts.points.size());
    require(count > 0 && all_points % count == 0, "[segment] {} points for {} prompts", all_points,
            count);
    const int64_t points = all_points / count, words = prompts.text ? 1 : 0;
    std::vector<float> values;
    for (int64_t i = 0; i < count; ++i) {
        values.insert(values.end(), outputs_.begin(), outputs_.end());
        values.resize(values.size() + static_cast<size_t>(words * width));
        for (int64_t p = 0; p < points; ++p) {
            const SegmentPoint& point = prompts.points[static_cast<size_t>(i * points + p)];
            const size_t begin = values.size();
            add_position(values, point.x, point.y, width);
            for (size_t j = 0; j < static_cast<size_t>(width); ++j)
                values[begin + j] += types_[static_cast<size_t>(point.kind * width) + j];
        }
    }
    const Tensor tokens = upload(stream, values, {count, outputs + words + points, width}, dtype_);
    if (prompts.text) {
        require(prompts.text.shape() == Shape{count, config_.text_width},
                "[segment] text is {}, expected ({}, {})", to_string(prompts.text.shape()), count,
                config_.text_width);
        const Tensor text = run(stream, text_, prompts.text);
        for (int64_t i = 0; i < count; ++i)
            stream.copy(read(text.slice(i, 1)), write(tokens.index(i).slice(outputs, 1)));
    }
    return tokens;
}

Tensor SegmentDecoder::picture_tokens(vk::Stream& stream, const SegmentFeatures& features,
                                      const SegmentPrompts& prompts) const {
    const Tensor& f = features.tokens;
    const int64_t count = prompts.count, tokens = features.rows * features.columns;
    require(f.dim(0) == 1 || f.dim(0) == count, "[segment] features of {} pictures for {} prompts",
            f.dim(0), count);
    Tensor x = f.dim(0) == count ? f : repeated(stream, f, count);
    if (prompts.earlier) {
        require(prompts.earlier.shape() == Shape{count, 4 * features.rows, 4 * features.columns},
                "[segment] earlier masks are {}, expected ({}, {}, {})",
                to_string(prompts.earlier.shape()), count, 4 * features.rows, 4 * features.columns);
        const Tensor h =
            linear(stream, mask_patches(stream, prompts.earlier), mask_.fc1, Activation::gelu);
        x = linear_residual(stream, h, mask_.fc2, x);
    } else {
        x = add(stream, x, no_mask_);
    }
    if (prompts.text) {
        require(f.dim(0) == 1, "[segment] words for several pictures at once");
        const Tensor words = permute(stream, linear(stream, prompts.text, match_text_), {1, 0});
        const Tensor alike =
            gemm(stream, linear(stream, f, match_picture_).reshape({tokens, -1}), words);
        const float scale = 1 / std::sqrt(static_cast<float>(config_.match_width));
        const Tensor scaled = linear_combination(
            stream, {{.coefficient = scale, .x = permute(stream, alike, {1, 0})}});
        x = gemm(stream, soft_clamp(stream, scaled, kMatchLimit).reshape({count, tokens, 1}),
                 matched_, {.residual = x});
    }
    return x;
}

Tensor SegmentDecoder::masks(vk::Stream& stream, const SegmentFeatures& features, const Tensor& x,
                             const Tensor& t) const {
    const int64_t rows = features.rows, columns = features.columns, count = x.dim(0);
    const auto [first, second] = config_.upscale;
    const auto grown = [&](const Tensor& from, const Linear& up, int64_t factor,
                           const Tensor& skip) {
        const Tensor wide =
            unpatchify(stream, linear(stream, from, up), factor * rows, factor * columns, 2);
        const Tensor shared =
            skip.dim(0) == 1 ? skip.reshape({skip.dim(1), skip.dim(2), skip.dim(3)}) : skip;
        return activate(stream, add(stream, wide, shared), Activation::gelu);
    };
    Tensor y = grown(x, up1_, 2, features.skip1);
    y = grown(y.reshape({count, 4 * rows * columns, first}), up2_, 4, features.skip2);
    y = conv2d(stream, y, refine_.weight,
               {.bias = refine_.bias, .activation = Activation::gelu, .residual = y});

    const Tensor of_masks = empty(stream.device(), {config_.masks, count, second}, x.dtype());
    for (int64_t k = 0; k < config_.masks; ++k) {
        const Tensor h = run(stream, hyper_[static_cast<size_t>(k)], t.index(1 + k));
        stream.copy(read(h), write(of_masks.index(k)));
    }
    const Tensor weights = permute(stream, of_masks, {1, 2, 0});
    const int64_t pixels = 16 * rows * columns;
    const Tensor flat = y.reshape({count, pixels, second});
    const Tensor logits = empty(stream.device(), {count, pixels, config_.masks}, x.dtype());
    for (int64_t i = 0; i < count; ++i)
        stream.copy(read(gemm(stream, flat.index(i), weights.index(i))), write(logits.index(i)));
    return permute(stream, logits, {0, 2, 1})
        .reshape({count, config_.masks, 4 * rows, 4 * columns});
}

SegmentAnswers SegmentDecoder::forward(vk::Stream& stream, const SegmentFeatures& features,
                                       const SegmentPrompts& prompts) const {
    const int64_t width = config_.width, tokens = features.rows * features.columns;
    const Tensor place =
        upload(stream, places(features.rows, features.columns, width), {tokens, width}, dtype_);
    const Tensor t0 = prompt_tokens(stream, prompts);
    Tensor t = t0, x = picture_tokens(stream, features, prompts);
    for (const Layer& layer : layers_) {
        const auto norm = [&](size_t i) { return layer_norm(stream, t, layer.norms[i]); };
        Tensor h = norm(0), with_prompt = add(stream, h, t0);
        t = attend(stream, layer.self_attention, with_prompt, with_prompt, h, t);
        const Tensor y = layer_norm(stream, x, layer.picture_norms[0]);
        t = attend(stream, layer.to_picture, add(stream, norm(1), t0), add(stream, y, place), y, t);
        t = linear_residual(stream, linear(stream, norm(2), layer.mlp.fc1, Activation::gelu),
                            layer.mlp.fc2, t);
        h = norm(3);
        x = attend(stream, layer.to_tokens,
                   add(stream, layer_norm(stream, x, layer.picture_norms[1]), place),
                   add(stream, h, t0), h, x);
    }
    x = layer_norm(stream, x, picture_norm_);
    t = attend(stream, last_, add(stream, layer_norm(stream, t, last_norm_), t0),
               add(stream, x, place), x, t);
    t = permute(stream, layer_norm(stream, t, out_norm_), {1, 0, 2});
    return {.logits = masks(stream, features, x, t), .scores = run(stream, score_, t.index(0))};
}

}  // namespace fovea
