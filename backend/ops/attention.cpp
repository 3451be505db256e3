#include "backend/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "backend/error.h"
#include "backend/ops/attention_kernel.h"
#include "backend/ops/attention_lists.h"
#include "backend/ops/device_list.h"
#include "backend/ops/dispatch.h"
#include "backend/ops/merge.h"
#include "backend/ops/permute.h"
#include "backend/ops/quantize.h"
#include "shaders/attention/attention_params.h"

namespace fovea {
namespace {

using Problem = AttentionProblem;

/// The axes of q, k, v and the extra ones.
struct Axes {
    bool tokens_first;
    int64_t heads(const Tensor& x) const { return x.dim(tokens_first ? 2 : 1); }
    int64_t tokens(const Tensor& x) const { return x.dim(tokens_first ? 1 : 2); }
    /// The shape of x with another number of tokens, heads and dims.
    Shape like(const Tensor& x, int64_t heads, int64_t tokens, int64_t dim) const {
        if (tokens_first) return {x.dim(0), tokens, heads, dim};
        return {x.dim(0), heads, tokens, dim};
    }
    /// For kernels that know no other layout.
    Tensor heads_first(vk::Stream& stream, const Tensor& x) const {
        return x && tokens_first ? permute(stream, x, {0, 2, 1, 3}) : x;
    }
    /// Vectors of `width` elements from a token to the next, where that is asked for.
    uint32_t pitch(const Tensor& x, int64_t width) const {
        if (!x || !tokens_first) return 0;
        const int64_t elements = x.pitch(x.dim(2) * x.dim(3));
        require(elements % 8 == 0,
                "[attention] columns of a tensor whose rows are multiples of 8 expected, found {}",
                elements);
        return static_cast<uint32_t>(elements / width);
    }
};

Axes axes_of(const AttentionOptions& options) {
    return {options.layout == HeadLayout::tokens_first};
}

void validate_options(const Tensor& q, const Tensor& k, const Tensor& v,
                      const AttentionOptions& options) {
    const Axes axes = axes_of(options);
    const int64_t heads = axes.heads(q), q_len = axes.tokens(q), kv_len = axes.tokens(k);
    const Tensor& extra = options.k_extra;
    require(!v || static_cast<bool>(extra) == static_cast<bool>(options.v_extra),
            "[attention] k_extra and v_extra go together");
    if (extra) {
        const auto needs = [&](const char* name, const Tensor& x, const Tensor& like) {
            require(x.rank() == 4, "[attention] {} needs four axes, found {}", name,
                    to_string(x.shape()));
            const Shape shape = axes.like(like, axes.heads(like), axes.tokens(extra), like.dim(3));
            require(x.shape() == shape, "[attention] {} needs {}, found {}", name, to_string(shape),
                    to_string(x.shape()));
        };
        needs("k_extra", extra, k);
        if (v) needs("v_extra", options.v_extra, v);
    }
    if (options.perturb) {
        require_like("attention", "perturb", options.perturb, {heads}, DType::f32);
        require(q_len == kv_len,
                "[attention] perturbed attention needs as many queries as keys, found {} and {}",
                q_len, kv_len);
        require(v.dim(3) % 8 == 0, "[attention] v_dim must be a multiple of 8, found {}", v.dim(3));
    }
    const auto per_head = [&](const char* name, const Tensor& x, Shape tail) {
        if (!x) return;
        tail.insert(tail.begin(), x.rank() > 0 && x.dim(0) == 1 ? 1 : heads);
        require_like("attention", name, x, tail, DType::f32);
        count_of("attention", x);
    };
    per_head("bias", options.bias, {q_len, kv_len});
    per_head("key_weights", options.key_weights, {kv_len});
    if (const Tensor& table = options.relative_bias) {
        require(table.rank() == 3 && table.dim(1) % 2 == 1 && table.dim(2) % 2 == 1,
                "[attention] relative_bias needs (heads, 2·rows − 1, 2·columns − 1), found {}",
                to_string(table.shape()));
        per_head("relative_bias", table, {table.dim(1), table.dim(2)});
        const int64_t tokens = (table.dim(1) + 1) / 2 * ((table.dim(2) + 1) / 2);
        require(q_len == tokens && kv_len == tokens,
                "[attention] relative_bias {} is for a grid of {} tokens, found {} queries and {} "
                "keys",
                to_string(table.shape()), tokens, q_len, kv_len);
    }
    const bool labels = options.q_labels || options.k_labels || options.multipliers;
    require(!labels || (options.q_labels && options.k_labels && options.multipliers),
            "[attention] q_labels, k_labels and multipliers go together");
    if (labels) {
        require_like("attention", "q_labels", options.q_labels, {q_len}, DType::i32);
        require_like("attention", "k_labels", options.k_labels, {kv_len}, DType::i32);
        require(options.multipliers.rank() == 2 && options.multipliers.dtype() == DType::f32,
                "[attention] multipliers must be a table of f32, labels of queries × of keys, "
                "found {}",
                to_string(options.multipliers.shape()));
    }
}

uint32_t flags_of(const Tensor& v, const AttentionOptions& options) {
    uint32_t flags = 0;
    const auto set = [&](bool condition, uint32_t flag) { flags |= condition ? flag : 0; };
    set(static_cast<bool>(v), shared::FLAG_VALUES);
    set(static_cast<bool>(options.k_extra), shared::FLAG_EXTRA);
    set(static_cast<bool>(options.perturb), shared::FLAG_PERTURB);
    set(static_cast<bool>(options.bias), shared::FLAG_BIAS);
    set(static_cast<bool>(options.relative_bias), shared::FLAG_RELATIVE_BIAS);
    set(static_cast<bool>(options.key_weights), shared::FLAG_KEY_WEIGHTS);
    set(static_cast<bool>(options.multipliers), shared::FLAG_MULTIPLIERS);
    set(options.layout == HeadLayout::tokens_first, shared::FLAG_TOKENS_FIRST);
    return flags;
}

/// v is absent where only the LSE is wanted.
Problem validate(const Tensor& q, const Tensor& k, const Tensor& v,
                 const AttentionOptions& options) {
    require(q && k, "[attention] q, k and v must be there");
    const Axes axes = axes_of(options);
    require(q.rank() == 4 && k.rank() == 4,
            "[attention] (batch, {}, head_dim) expected, found q {} and k {}",
            axes.tokens_first ? "tokens, heads" : "heads, tokens", to_string(q.shape()),
            to_string(k.shape()));
    const int64_t q_len = axes.tokens(q), kv_len = axes.tokens(k), heads = axes.heads(q);
    require(q.dim(0) == k.dim(0) && q.dim(3) == k.dim(3) && heads % axes.heads(k) == 0,
            "[attention] q and k need the same batch and head_dim, and heads a multiple of k's "
            "heads; found q {} and k {}",
            to_string(q.shape()), to_string(k.shape()));
    if (v)
        require(
            v.rank() == 4 && v.dim(0) == k.dim(0) && v.dim(1) == k.dim(1) && v.dim(2) == k.dim(2),
            "[attention] k and v must agree in batch, heads and tokens, found {} and {}",
            to_string(k.shape()), to_string(v.shape()));
    for (const Tensor& x : {q, k, v})
        require(!x || x.numel() > 0, "[attention] an empty tensor, {}", to_string(x.shape()));
    const auto whole = [](int64_t d) { return d % 8 == 0 && d <= 256; };
    require(whole(q.dim(3)), "[attention] head_dim must be a multiple of 8 up to 256, found {}",
            q.dim(3));
    require(!v || whole(v.dim(3)), "[attention] v_dim must be a multiple of 8 up to 256, found {}",
            v ? v.dim(3) : 0);
    const auto same_type = [&](const Tensor& t) { return !t || t.dtype() == q.dtype(); };
    require((q.dtype() == DType::f32 || q.dtype() == DType::f16) && same_type(k) && same_type(v) &&
                same_type(options.k_extra) && same_type(options.v_extra),
            "[attention] q, k, v, k_extra and v_extra must be all of f32 or all of f16, found q {} "
            "and k {}",
            name_of(q.dtype()), name_of(k.dtype()));
    validate_options(q, k, v, options);
    const auto u = [](int64_t n) { return static_cast<uint32_t>(n); };
    return {.batch = u(q.dim(0)),
            .heads = u(heads),
            .kv_heads = u(axes.heads(k)),
            .q_len = u(q_len),
            .kv_len = u(kv_len),
            .extra_len = options.k_extra ? u(axes.tokens(options.k_extra)) : 0,
            .head_dim = u(q.dim(3)),
            .v_dim = v ? u(v.dim(3)) : 8,
            .dtype = q.dtype(),
            .flags = flags_of(v, options),
            .scores = options.scores};
}

void validate(const Pattern& pattern, const Problem& p) {
    const Grid& grid = pattern.grid();
    const uint64_t tokens = grid.tokens();
    require(grid.shape.empty() || (p.q_len == tokens && p.kv_len == tokens),
            "[attention] the grid of pattern {} has {} tokens, found {} queries and {} keys",
            pattern.key(), tokens, p.q_len, p.kv_len);
    require(pattern.heads() == 0 || pattern.heads() == p.heads,
            "[attention] pattern {} is for {} heads, found {}", pattern.key(), pattern.heads(),
            p.heads);
    pattern.accepts(p.q_len, p.kv_len);
}

uint32_t head_stride(const Tensor& x) {
    return x && x.dim(0) > 1 ? static_cast<uint32_t>(x.numel() / x.dim(0)) : 0;
}

/// Parts of the keys. Long enough each for what merging costs.
uint32_t key_parts(const vk::DeviceInfo& device, const Problem& p, const AttentionOptions& options,
                   uint32_t query_tiles) {
    constexpr uint32_t kShortest = 1024, kMost = 16;
    const bool can = (p.flags & shared::FLAG_VALUES) && !options.perturb &&
                     !(options.lse && options.layout == HeadLayout::tokens_first);
    require(can || options.key_parts <= 1,
            "[attention] {} parts of the keys found together with perturb, without v or with lse "
            "where tokens come first: one is expected there",
            options.key_parts);
    if (!can || options.key_parts > 0) return std::max(options.key_parts, 1u);
    if (device.type == vk::DeviceType::cpu) return 1;
    const uint64_t workgroups = uint64_t{query_tiles} * p.heads * p.batch;
    return static_cast<uint32_t>(std::clamp<uint64_t>(kEnoughWorkgroups / workgroups, 1,
                                                      std::clamp(p.kv_len / kShortest, 1u, kMost)));
}

/// o is absent where v is, lse where it is not asked for.
AttentionPart run(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                  const ListSource& lists, const AttentionOptions& options, Problem p,
                  bool with_lse) {
    vk::Device& device = stream.device();
    tune_on_first_use(
        device, "attention",
        [&] { return attention_tiles(device.info(), p, lists.granularity, options.path); },
        [&](vk::Stream& own) { run(own, q, k, v, lists, options, p, with_lse); });
    const AttentionChoice choice =
        choose_attention(device.info(), p, lists.granularity, options.path);
    const DeviceList list = lists.make(stream, choice.block());
    if (list.ordered) p.flags |= shared::FLAG_ORDERED;
    if (list.turns) p.flags |= shared::FLAG_TURNS;
    const bool asks = choice.path == AttentionPath::nv2 && !choice.emulated;
    const AttentionKernel kernel = attention_kernel(
        choice, device.info(), p, asks ? element_places(device, choice.matrix) : ElementPlaces{});
    const float scale =
        options.scale != 0 ? options.scale : 1 / std::sqrt(static_cast<float>(p.head_dim));
    const Tensor &relative = options.relative_bias, &multipliers = options.multipliers;
    const auto side = [&](int64_t axis) {
        return relative ? static_cast<uint32_t>(relative.dim(axis) + 1) / 2 : 0;
    };
    const Axes axes = axes_of(options);
    const uint32_t parts = key_parts(device.info(), p, options, list.query_tiles);
    // Parts begin where the device lets bindings begin, at most 256 bytes.
    const int64_t rows = int64_t{p.batch} * p.heads * p.q_len, part_rows = (rows + 63) / 64 * 64;
    const auto output = [&](const Shape& shape, int64_t row, DType dtype) {
        return empty(device, parts > 1 ? Shape{parts, part_rows * row} : shape, dtype);
    };
    const Shape lse_shape =
        parts > 1 ? Shape{p.batch, q.dim(1), q.dim(2)} : Shape{p.batch, p.heads, p.q_len};
    const Shape o_shape = v ? axes.like(q, p.heads, p.q_len, v.dim(3)) : Shape{};
    AttentionPart result;
    if (v) result.o = output(o_shape, v.dim(3), q.dtype());
    if (with_lse || parts > 1) result.lse = output(lse_shape, 1, DType::f32);
    const int64_t width = choice.path == AttentionPath::scalar ? 4 : 8;
    shared::AttentionParams params{
        .q_len = p.q_len,
        .kv_len = p.kv_len,
        .extra_len = p.extra_len,
        .n_heads = p.heads,
        .n_kv_heads = p.kv_heads,
        .scale = scale * std::numbers::log2e_v<float>,
        .list_words = list.list_words,
        .write_lse = result.lse ? 1u : 0u,
        .bias_head_stride = head_stride(options.bias),
        .relative_head_stride = head_stride(relative),
        .grid_rows = side(1),
        .grid_columns = side(2),
        .weights_head_stride = head_stride(options.key_weights),
        .q_labels = multipliers ? static_cast<uint32_t>(multipliers.dim(0)) : 0,
        .k_labels = multipliers ? static_cast<uint32_t>(multipliers.dim(1)) : 0,
        .k_tiles = 0,
        .q_pitch = axes.pitch(q, width),
        .k_pitch = axes.pitch(k, width),
        .v_pitch = axes.pitch(v, width),
        .k_extra_pitch = axes.pitch(options.k_extra, width),
        .v_extra_pitch = axes.pitch(options.v_extra, width),
        .batch = p.batch,
        .parts = parts,
        .part_rows = static_cast<uint32_t>(part_rows),
        .list_sample_words = list.sample_words};
    QuantizedScores int8;
    if (p.scores == ScorePrecision::int8) {
        const bool modified = options.bias || relative || options.key_weights || multipliers;
        int8 = quantize_scores(
            stream, axes.heads_first(stream, q), axes.heads_first(stream, k), list,
            {.tile = choice.block(),
             .q_rows = choice.subgroup_rows(),
             .columns = (p.head_dim + choice.score_k - 1) / choice.score_k * choice.score_k,
             .scale = params.scale,
             .shifts = result.lse || modified,
             .k_extra = axes.heads_first(stream, options.k_extra)});
        params.k_tiles = int8.k_tiles;
    }
    const auto input = axes.tokens_first ? read_view : read;
    std::vector<vk::Access> accesses{input(int8.q ? int8.q : q),
                                     input(int8.k ? int8.k : k),
                                     input(v),
                                     input(int8.k ? int8.k_scales : options.k_extra),
                                     input(options.v_extra),
                                     read(list.words),
                                     write(result.o),
                                     write(result.lse),
                                     read(options.perturb),
                                     read(options.bias),
                                     read(relative),
                                     read(options.key_weights),
                                     read(options.q_labels),
                                     read(options.k_labels),
                                     read(multipliers)};
    if (int8.q) accesses.push_back(read(int8.q_slots));
    stream.dispatch(device.program(*kernel.shader, kernel.constants, kernel.full_subgroups),
                    accesses, params, {list.query_tiles, p.heads, p.batch * parts}, "attention");
    if (parts == 1) return result;
    std::vector<AttentionPart> of_parts;
    for (uint32_t i = 0; i < parts; ++i)
        of_parts.push_back({result.o.index(i).slice(0, rows * v.dim(3)).reshape(o_shape),
                            result.lse.index(i).slice(0, rows).reshape(lse_shape)});
    return merge(stream, of_parts);
}

ListSource lists_of(const Pattern& pattern, const Problem& p) {
    return {pattern.granularity(), [pattern, p](vk::Stream& stream, TileShape tile) {
                return device_list(stream, pattern, tile, p.q_len, p.kv_len, p.extra_len);
            }};
}

}  // namespace

Tensor attention(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                 const Pattern& pattern, const AttentionOptions& options) {
    require(static_cast<bool>(v), "[attention] q, k and v must be there");
    const Problem p = validate(q, k, v, options);
    validate(pattern, p);
    const AttentionPart result =
        run(stream, q, k, v, lists_of(pattern, p), options, p, static_cast<bool>(options.lse));
    if (options.lse) *options.lse = result.lse;
    return result.o;
}

Tensor attention_lse(vk::Stream& stream, const Tensor& q, const Tensor& k, const Pattern& pattern,
                     const AttentionOptions& options) {
    AttentionOptions own = options;
    own.v_extra = own.perturb = {};
    const Problem p = validate(q, k, {}, own);
    validate(pattern, p);
    return run(stream, q, k, {}, lists_of(pattern, p), own, p, true).lse;
}

Tensor attention_over(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                      const ListSource& lists, const AttentionOptions& options) {
    require(static_cast<bool>(v), "[attention] q, k and v must be there");
    const Problem p = validate(q, k, v, options);
    const AttentionPart result =
        run(stream, q, k, v, lists, options, p, static_cast<bool>(options.lse));
    if (options.lse) *options.lse = result.lse;
    return result.o;
}

}  // namespace fovea
