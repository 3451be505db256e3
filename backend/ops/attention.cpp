#include "backend/ops/attention.h"

#include <cmath>
#include <cstdlib>
#include <map>
#include <numbers>
#include <tuple>

#include "backend/error.h"
#include "backend/log.h"
#include "backend/patterns/planner.h"
#include "shaders.h"
#include "shaders/attention/attention_params.h"

namespace fovea {
namespace {

constexpr AttentionPath kFastestFirst[] = {AttentionPath::nv2, AttentionPath::khr,
                                           AttentionPath::scalar};

struct Problem {
    uint32_t batch, heads, kv_heads, q_len, kv_len, extra_len, head_dim;
    DType dtype;
};

Problem validate(const Tensor& q, const Tensor& k, const Tensor& v, const Pattern& pattern,
                 const AttentionOptions& options) {
    require(q && k && v, "[attention] q, k and v must be there");
    require(q.rank() == 4 && k.rank() == 4,
            "[attention] (batch, heads, tokens, head_dim) expected, found q {} and k {}",
            to_string(q.shape()), to_string(k.shape()));
    require(v.shape() == k.shape(), "[attention] k and v must have one shape, found {} and {}",
            to_string(k.shape()), to_string(v.shape()));
    require(q.dim(0) == k.dim(0) && q.dim(3) == k.dim(3) && q.dim(1) % k.dim(1) == 0,
            "[attention] q and k need the same batch and head_dim, and heads a multiple of k's "
            "heads; found q {} and k {}",
            to_string(q.shape()), to_string(k.shape()));
    require(q.dim(3) % 8 == 0 && q.dim(3) <= 256,
            "[attention] head_dim must be a multiple of 8 up to 256, found {}", q.dim(3));
    const auto same_type = [&](const Tensor& t) { return !t || t.dtype() == q.dtype(); };
    require((q.dtype() == DType::f32 || q.dtype() == DType::f16) && same_type(k) && same_type(v) &&
                same_type(options.k_extra) && same_type(options.v_extra),
            "[attention] all of f32 or all of f16 expected, found {}, {} and {}",
            name_of(q.dtype()), name_of(k.dtype()), name_of(v.dtype()));
    const Tensor& extra = options.k_extra;
    require(static_cast<bool>(extra) == static_cast<bool>(options.v_extra),
            "[attention] k_extra and v_extra go together");
    if (extra)
        require(extra.shape() == options.v_extra.shape() &&
                    extra.shape() == Shape{k.dim(0), k.dim(1), extra.dim(-2), k.dim(3)},
                "[attention] k_extra and v_extra need ({}, {}, n, {}), found {} and {}", k.dim(0),
                k.dim(1), k.dim(3), to_string(extra.shape()), to_string(options.v_extra.shape()));
    const Grid& grid = pattern.grid();
    const auto tokens = static_cast<int64_t>(grid.tokens());
    require(grid.shape.empty() || (q.dim(2) == tokens && k.dim(2) == tokens),
            "[attention] the grid of pattern {} has {} tokens, found {} queries and {} keys",
            pattern.key(), tokens, q.dim(2), k.dim(2));
    const auto u = [](int64_t n) { return static_cast<uint32_t>(n); };
    return {.batch = u(q.dim(0)),
            .heads = u(q.dim(1)),
            .kv_heads = u(k.dim(1)),
            .q_len = u(q.dim(2)),
            .kv_len = u(k.dim(2)),
            .extra_len = extra ? u(extra.dim(2)) : 0,
            .head_dim = u(q.dim(3)),
            .dtype = q.dtype()};
}

vk::Support supports(AttentionPath path, const vk::DeviceInfo& device) {
    switch (path) {
        case AttentionPath::scalar:
            return device.scalar;
        case AttentionPath::khr:
            return device.khr.ok ? vk::Support{false, "not built in this version"} : device.khr;
        case AttentionPath::nv2:
            return device.nv2.ok ? vk::Support{false, "not built in this version"} : device.nv2;
        case AttentionPath::automatic:
            break;
    }
    return {false, "not a path"};
}

AttentionPath forced_path(const AttentionOptions& options) {
    const char* text = std::getenv("FOVEA_ATTENTION_PATH");
    if (options.path != AttentionPath::automatic || !text || !*text) return options.path;
    for (const AttentionPath path : kFastestFirst)
        if (std::string(text) == name_of(path)) return path;
    require(std::string(text) == "automatic",
            "[attention] FOVEA_ATTENTION_PATH must be automatic, scalar, khr or nv2, found \"{}\"",
            text);
    return AttentionPath::automatic;
}

AttentionPath choose_path(const vk::DeviceInfo& device, const AttentionOptions& options) {
    const AttentionPath forced = forced_path(options);
    for (const AttentionPath path : kFastestFirst) {
        if (forced != AttentionPath::automatic && forced != path) continue;
        const vk::Support support = supports(path, device);
        if (support.ok) return path;
        require(forced != path, "[attention] path {} cannot run on {}: {}", name_of(path),
                device.name, support.why);
        log::debug("attention: not path {}: {}", name_of(path), support.why);
    }
    fail("[attention] no path runs on {}", device.name);
}

/// A block list in device memory: rows, blocks and masks in one buffer of words.
struct DeviceList {
    Tensor words;
    uint32_t query_tiles, key_tiles, blocks_at, masks_at;
};

DeviceList upload_list(vk::Stream& stream, const BlockList& list) {
    std::vector<int32_t> words;
    words.reserve(2 * (list.rows.size() + list.blocks.size()) + list.masks.size());
    const auto add = [&](uint32_t word) { words.push_back(static_cast<int32_t>(word)); };
    for (const auto& row : list.rows) add(row.first), add(row.count);
    const auto blocks_at = static_cast<uint32_t>(words.size());
    for (const auto& block : list.blocks) add(block.key_tile), add(block.mask);
    const auto masks_at = static_cast<uint32_t>(words.size());
    for (const uint32_t word : list.masks) add(word);
    Tensor tensor = upload(stream, words, {static_cast<int64_t>(words.size())});
    stream.submit();  // before another stream uses the list
    return {std::move(tensor), list.query_tiles(), list.key_tiles(), blocks_at, masks_at};
}

/// Lists are shared by all heads, layers and steps. Bounded: a program with more patterns at once
/// than this builds some of them again.
struct ListCache {
    static constexpr size_t kMost = 64;
    using Key = std::tuple<std::string, Grid, TileShape, uint32_t, uint32_t, uint32_t>;
    std::map<Key, DeviceList> lists;
};

DeviceList device_list(vk::Stream& stream, const Pattern& pattern, TileShape tile,
                       const Problem& p) {
    auto& lists = stream.device().cache<ListCache>().lists;
    const ListCache::Key key{pattern.key(), pattern.grid(), tile, p.q_len, p.kv_len, p.extra_len};
    if (const auto found = lists.find(key); found != lists.end()) return found->second;
    const BlockList list = block_list(pattern, tile, p.q_len, p.kv_len, p.extra_len);
    log::debug(
        "attention: {} of {} × {} in {}×{} tiles visits {:.1f} % of the blocks, keeps "
        "{:.1f} % of the pairs, {} KiB of masks",
        pattern.key(), p.q_len, p.kv_len, tile.q, tile.k, 100 * list.visited_share(),
        100 * list.kept_share(), list.masks.size() / 256);
    if (lists.size() >= ListCache::kMost) lists.clear();
    return lists.emplace(key, upload_list(stream, list)).first->second;
}

/// Specialisation constants of a path's module for a problem.
struct Kernel {
    const vk::Shader* shader;
    std::vector<uint32_t> constants;
    TileShape tile;
};

Kernel scalar_kernel(const vk::DeviceInfo& device, const Problem& p) {
    const bool cpu = device.type == vk::DeviceType::cpu;  // see tile_scalar.glsl
    const uint32_t lanes = cpu ? device.limits.subgroup_size : 64;
    const uint32_t rows = cpu ? 2 : 1;
    const uint32_t keys = 16;
    const bool unroll = !cpu, hand_round = cpu && lanes >= 2 && lanes <= 2 * keys;
    return {.shader = p.dtype == DType::f16 ? &shader::attention_scalar_f16
                                            : &shader::attention_scalar_f32,
            .constants = {lanes, rows, keys, p.head_dim, p.extra_len > 0, unroll, hand_round},
            .tile = {.q = lanes * rows, .k = keys}};
}

}  // namespace

const char* name_of(AttentionPath path) {
    switch (path) {
        case AttentionPath::automatic:
            return "automatic";
        case AttentionPath::scalar:
            return "scalar";
        case AttentionPath::khr:
            return "khr";
        case AttentionPath::nv2:
            return "nv2";
    }
    return "?";
}

std::vector<PathSupport> attention_paths(const vk::DeviceInfo& device) {
    std::vector<PathSupport> paths;
    for (const AttentionPath path : kFastestFirst) paths.push_back({path, supports(path, device)});
    return paths;
}

Tensor attention(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
                 const Pattern& pattern, const AttentionOptions& options) {
    const Problem p = validate(q, k, v, pattern, options);
    vk::Device& device = stream.device();
    choose_path(device.info(), options);  // scalar: the only one built
    const Kernel kernel = scalar_kernel(device.info(), p);
    const DeviceList list = device_list(stream, pattern, kernel.tile, p);

    const Tensor o = empty(device, q.shape(), q.dtype());
    Tensor lse;
    if (options.lse) lse = empty(device, {q.dim(0), q.dim(1), q.dim(2)}, DType::f32);
    const float scale =
        options.scale != 0 ? options.scale : 1 / std::sqrt(static_cast<float>(p.head_dim));
    const shared::AttentionParams params{.q_len = p.q_len,
                                         .kv_len = p.kv_len,
                                         .extra_len = p.extra_len,
                                         .n_heads = p.heads,
                                         .n_kv_heads = p.kv_heads,
                                         .scale = scale * std::numbers::log2e_v<float>,
                                         .key_tiles = list.key_tiles,
                                         .write_lse = options.lse ? 1u : 0u,
                                         .blocks_at = list.blocks_at,
                                         .masks_at = list.masks_at};
    stream.dispatch(device.program(*kernel.shader, kernel.constants),
                    {read(q), read(k), read(v), read(options.k_extra), read(options.v_extra),
                     read(list.words), write(o), write(lse)},
                    params, {list.query_tiles, p.heads, p.batch}, "attention");
    if (options.lse) *options.lse = lse;
    return o;
}

}  // namespace fovea
