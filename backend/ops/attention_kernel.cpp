#include "backend/ops/attention_kernel.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "backend/error.h"
#include "backend/log.h"
#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/attention/attention_params.h"

namespace fovea {
namespace {

constexpr AttentionPath kFastestFirst[] = {AttentionPath::nv2, AttentionPath::khr,
                                           AttentionPath::scalar};

uint32_t round_up(uint32_t x, uint32_t step) {
    return (x + step - 1) / step * step;
}

bool is_emulated(AttentionPath path, const vk::DeviceInfo& device) {
    return path != AttentionPath::scalar && lacks_matrices(device);
}

/// The product a matrix path works with; all zero if none fits.
vk::MatrixShape matrix_shape(AttentionPath path, const vk::DeviceInfo& device) {
    const vk::MatrixShape usual{16, 16, 16};
    const auto& shapes = device.fp16_matrices;
    if (path == AttentionPath::khr)
        if (const vk::MatrixShape m = forced_matrix_shape(device); m != vk::MatrixShape{}) return m;
    if (is_emulated(path, device) || std::find(shapes.begin(), shapes.end(), usual) != shapes.end())
        return usual;
    if (path == AttentionPath::nv2) return {};
    for (const auto& shape : shapes) {
        const uint32_t lanes = device.limits.subgroup_size;
        if (shape.n % 8 == 0 && shape.k % 8 == 0 && shape.n <= 32 && shape.k <= 32 &&
            (lanes % shape.m == 0 || shape.m % lanes == 0))
            return shape;
    }
    return {};
}

/// The third extent of int8 products of the path's m × n; 0 if there are none.
uint32_t int8_k(AttentionPath path, const vk::DeviceInfo& device) {
    const vk::MatrixShape m = matrix_shape(path, device);
    if (is_emulated(path, device)) return m.k;
    uint32_t best = 0;
    for (const auto& shape : device.int8_matrices)
        if (shape.m == m.m && shape.n == m.n && shape.k % 16 == 0 && (best == 0 || shape.k < best))
            best = shape.k;
    return best;
}

vk::Support int8_support(AttentionPath path, const vk::DeviceInfo& device, DType dtype) {
    if (dtype != DType::f16)
        return {false, fmt::format("int8 scores are for tensors of f16, found {}", name_of(dtype))};
    if (path == AttentionPath::scalar)
        return {false, "int8 scores are products of matrix units, which it does without"};
    const vk::MatrixShape m = matrix_shape(path, device);
    if (int8_k(path, device) == 0)
        return {false, fmt::format("no int8 × int8 → int32 matrix shape {}×{} at subgroup scope",
                                   m.m, m.n)};
    if (!is_emulated(path, device) && !device.int8_arithmetic)
        return {false, "no 8-bit integers in shaders"};
    return {true, ""};
}

const vk::Shader& module_of(AttentionPath path, ScorePrecision scores, bool emulated) {
    const bool int8 = scores == ScorePrecision::int8;
    if (path == AttentionPath::khr)
        return int8 ? emulated ? shader::attention_khr_int8_emulated : shader::attention_khr_int8
               : emulated ? shader::attention_khr_emulated
                          : shader::attention_khr;
    return int8       ? emulated ? shader::attention_nv2_int8_emulated : shader::attention_nv2_int8
           : emulated ? shader::attention_nv2_emulated
                      : shader::attention_nv2;
}

/// Of a workgroup, as the kernels declare it.
uint64_t shared_bytes(AttentionPath path, const vk::DeviceInfo& device, const AttentionProblem& p,
                      AttentionTile t) {
    const vk::MatrixShape m = matrix_shape(path, device);
    const uint32_t v_vectors = round_up(p.v_dim, m.n) / 8;
    uint64_t kv = 2 * (std::max(round_up(p.head_dim, m.k) / 8, v_vectors) + 1);
    if (p.scores == ScorePrecision::int8)
        kv = (round_up(p.head_dim, int8_k(path, device)) / 16 | 1) + v_vectors + 1;
    kv *= 16 * t.keys;
    const uint64_t s = uint64_t{4} * m.m * (path == AttentionPath::khr ? t.keys + m.n : m.n);
    return kv + t.subgroups * s + 4 * t.keys + 4;
}

/// FOVEA_TILE=SUBGROUPSxKEYSxROW_TILES[xUNROLL], for measurements.
bool forced_tile(AttentionTile& t) {
    const char* text = std::getenv("FOVEA_TILE");
    if (!text) return false;
    t.unroll = 1;
    require(
        std::sscanf(text, "%ux%ux%ux%u", &t.subgroups, &t.keys, &t.row_tiles, &t.unroll) >= 3 &&
            t.subgroups > 0 && t.keys > 0 && t.row_tiles > 0 && t.unroll >= 1 && t.unroll <= 2,
        "[attention] FOVEA_TILE is SUBGROUPSxKEYSxROW_TILES[xUNROLL] such as 8x64x1 or 8x64x1x2, "
        "found \"{}\"",
        text);
    return true;
}

/// Why the kernel cannot run the tile; ok where it can.
vk::Support supports(AttentionPath path, const vk::DeviceInfo& device, const AttentionProblem& p,
                     const AttentionTile& t) {
    const vk::MatrixShape m = matrix_shape(path, device);
    const bool nv2 = path == AttentionPath::nv2;
    const uint32_t lanes_a_row = std::max(1u, device.limits.subgroup_size / m.m);
    if (t.keys % std::max(m.n, m.k) != 0 || t.keys % std::min(m.n, m.k) != 0 ||
        2 * t.keys < t.row_tiles * m.m || t.keys / 2 < lanes_a_row ||
        (!nv2 && (t.row_tiles > 1 || t.unroll > 1)))
        return {false, fmt::format("{} keys and {} row tiles with matrices of {}x{}x{}", t.keys,
                                   t.row_tiles, m.m, m.n, m.k)};
    const uint32_t workgroup = t.subgroups * device.limits.subgroup_size;
    if (workgroup > device.limits.workgroup_invocations)
        return {false, fmt::format("{} invocations, the device allows {}", workgroup,
                                   device.limits.workgroup_invocations)};
    const uint64_t shared = shared_bytes(path, device, p, t);
    if (shared > device.limits.shared_memory)
        return {false, fmt::format("{} bytes of shared memory at head_dim {}, the device has {}",
                                   shared, p.head_dim, device.limits.shared_memory)};
    return {true, ""};
}

AttentionTile matrix_tile(AttentionPath path, const vk::DeviceInfo& device,
                          const AttentionProblem& p, TileShape granularity) {
    const vk::MatrixShape m = matrix_shape(path, device);
    const bool nv2 = path == AttentionPath::nv2, emulated = is_emulated(path, device);
    const uint32_t widest = std::max(p.head_dim, p.v_dim);
    // Measured on an H200 (nv2): 8 subgroups and 64 keys; up to head_dim 64 registers hold two row
    // tiles, or 128 keys where there are too few rows for that.
    AttentionTile t = nv2 ? AttentionTile{8, 64, 1, 2} : AttentionTile{4, 32, 1};
    if (widest > 128) t.keys = 32;
    const uint64_t rows = uint64_t{p.batch} * p.heads * p.q_len;
    if (nv2 && widest <= 64)
        t = rows >= 512 * 256 ? AttentionTile{8, 64, 2, 2} : AttentionTile{8, 128, 1, 2};
    if (emulated) t = {2, 32, nv2 && widest <= 64 ? 2u : 1u};
    const bool forced = forced_tile(t);
    const auto rows_of = [&](const AttentionTile& x) { return x.subgroups * x.row_tiles * m.m; };
    const uint32_t least_keys = std::max(m.n, m.k);
    if (granularity.q && granularity.q < rows_of(t)) t.row_tiles = 1;
    const uint32_t wanted_q = std::min(granularity.q ? granularity.q : ~0u, p.q_len);
    while (t.subgroups > 1 && rows_of(t) / 2 >= wanted_q) t.subgroups /= 2;
    while (t.subgroups * device.limits.subgroup_size > device.limits.workgroup_invocations)
        t.subgroups /= 2;
    while (granularity.k && t.keys > granularity.k && t.keys / 2 >= least_keys) t.keys /= 2;
    // A workgroup of half the size is to leave room for another one beside it (H200).
    if (nv2 && !forced && !emulated && t.subgroups <= 4 && widest > 64)
        t.keys = std::min(t.keys, 32u);
    while (t.keys / 2 >= least_keys &&
           shared_bytes(path, device, p, t) > device.limits.shared_memory)
        t.keys /= 2;
    while (t.subgroups > 1 && shared_bytes(path, device, p, t) > device.limits.shared_memory)
        t.subgroups /= 2;
    const vk::Support support = supports(path, device, p, t);
    require(support.ok, "[attention] path {} cannot take {} on {}: {}", name_of(path), support.why,
            device.name, forced ? "see FOVEA_TILE" : "force the scalar path");
    return t;
}

/// What tuning chooses from, for 32 lanes and matrices of 16 rows: 16 to 256 queries.
constexpr AttentionTile kTiles[] = {
    {8, 64, 1},    {8, 64, 1, 2}, {8, 128, 1}, {8, 128, 1, 2}, {8, 64, 2},    {8, 64, 2, 2},
    {8, 96, 1},    {8, 96, 2},    {8, 32, 1},  {4, 32, 1},     {4, 32, 1, 2}, {4, 64, 1},
    {4, 64, 1, 2}, {4, 128, 1},   {2, 32, 1},  {2, 64, 1},     {1, 32, 1},    {1, 64, 1},
};

/// Runs, cuts the pattern's blocks into whole ones and is not twice as high as there are queries.
bool is_candidate(AttentionPath path, const vk::DeviceInfo& device, const AttentionProblem& p,
                  TileShape granularity, const AttentionTile& t) {
    const uint32_t rows = t.subgroups * t.row_tiles * matrix_shape(path, device).m;
    const uint32_t wanted = std::min(granularity.q ? granularity.q : ~0u, p.q_len);
    return supports(path, device, p, t).ok && (t.subgroups == 1 || rows / 2 < wanted) &&
           (granularity.q == 0 || granularity.q % rows == 0) &&
           (granularity.k == 0 || granularity.k % t.keys == 0);
}

/// Patterns count by their blocks, and queries up to 512 also a head: that many fill a workgroup.
/// FLAG_VALUES is left out, as attention_lse() has a v_dim of its own.
std::string class_of(AttentionPath path, const AttentionProblem& p, TileShape granularity) {
    const uint64_t rows = uint64_t{p.batch} * p.heads * p.q_len;
    return fmt::format("attention {} dim {}x{} rows {} queries {} blocks {}x{} flags {}",
                       name_of(path), round_up(p.head_dim, 16), round_up(p.v_dim, 16),
                       size_class(rows), std::min<uint64_t>(std::bit_ceil(p.q_len), 512),
                       granularity.q, granularity.k,
                       p.flags & ~(shared::FLAG_VALUES | shared::FLAG_ORDERED | shared::FLAG_TURNS |
                                   shared::FLAG_TOKENS_FIRST)) +
           (p.scores == ScorePrecision::int8 ? " int8" : "");
}

std::optional<AttentionTile> parse_tile(const std::string& text) {
    AttentionTile t{0, 0, 0};
    std::sscanf(text.c_str(), "%ux%ux%ux%u", &t.subgroups, &t.keys, &t.row_tiles, &t.unroll);
    const bool whole = text == to_string(t) && t.subgroups > 0 && t.subgroups <= 64 && t.keys > 0 &&
                       t.keys <= 1024 && t.row_tiles > 0 && t.row_tiles <= 16 && t.unroll >= 1 &&
                       t.unroll <= 2;
    return whole ? std::optional(t) : std::nullopt;
}

/// What was measured, where it fits this problem of its class.
std::optional<AttentionTile> measured_tile(AttentionPath path, const vk::DeviceInfo& device,
                                           const AttentionProblem& p, TileShape granularity) {
    if (std::getenv("FOVEA_TILE")) return std::nullopt;
    const auto shape_class = [&] { return class_of(path, p, granularity); };
    const auto text = tuned_tile(device, shape_class);
    if (!text) return std::nullopt;
    const auto tile = parse_tile(*text);
    // Under test is also the rule's own tile, which is no candidate by itself.
    if (tile && supports(path, device, p, *tile).ok) return tile;
    log::debug("tuning: {}: tile {} does not fit: ignored", shape_class(), *text);
    return std::nullopt;
}

}  // namespace

std::string to_string(const AttentionTile& t) {
    const std::string whole = fmt::format("{}x{}x{}", t.subgroups, t.keys, t.row_tiles);
    return t.unroll == 1 ? whole : fmt::format("{}x{}", whole, t.unroll);
}

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

AttentionPath parse_path(const std::string& name) {
    for (const AttentionPath path :
         {AttentionPath::automatic, AttentionPath::scalar, AttentionPath::khr, AttentionPath::nv2})
        if (name == name_of(path)) return path;
    fail("[attention] a path is automatic, scalar, khr or nv2, found \"{}\"", name);
}

AttentionPath wanted_path(AttentionPath option) {
    const char* text = std::getenv("FOVEA_PATH");
    return option == AttentionPath::automatic && text && *text ? parse_path(text) : option;
}

const char* name_of(ScorePrecision scores) {
    return scores == ScorePrecision::int8 ? "int8" : "stored";
}

ScorePrecision parse_scores(const std::string& name) {
    for (const ScorePrecision scores : {ScorePrecision::stored, ScorePrecision::int8})
        if (name == name_of(scores)) return scores;
    fail("[attention] scores are stored or int8, found \"{}\"", name);
}

vk::Support supports(AttentionPath path, const vk::DeviceInfo& device, DType dtype,
                     ScorePrecision scores) {
    if (scores == ScorePrecision::int8) {
        const vk::Support support = supports(path, device, dtype);
        if (!support.ok && path != AttentionPath::scalar) return support;
        return int8_support(path, device, dtype);
    }
    switch (path) {
        case AttentionPath::scalar:
            if (dtype == DType::f16 && !device.fp16_storage)
                return {false, "no 16-bit storage buffers: use fp32"};
            return device.scalar;
        case AttentionPath::khr:
        case AttentionPath::nv2: {
            const bool khr = path == AttentionPath::khr;
            vk::Support support =
                matrix_support(khr ? device.khr : device.nv2, device,
                               khr ? shader::attention_khr : shader::attention_nv2, dtype);
            if (support.ok && matrix_shape(path, device) == vk::MatrixShape{})
                return {false, "no matrix shape that the kernel can use"};
            return support;
        }
        case AttentionPath::automatic:
            break;
    }
    return {false, "not a path"};
}

AttentionPath choose_path(const vk::DeviceInfo& device, DType dtype, AttentionPath wanted,
                          ScorePrecision scores) {
    wanted = wanted_path(wanted);
    std::string refusals;
    for (const AttentionPath path : kFastestFirst) {
        if (wanted != AttentionPath::automatic && wanted != path) continue;
        vk::Support support = supports(path, device, dtype, scores);
        if (support.ok && (!is_emulated(path, device) || wanted == path)) return path;
        require(wanted != path, "[attention] path {} cannot run on {}: {}", name_of(path),
                device.name, support.why);
        if (support.ok) support.why = "emulated: for those who ask for this path";
        log::debug("attention: not path {}: {}", name_of(path), support.why);
        refusals += fmt::format("; {}: {}", name_of(path), support.why);
    }
    fail("[attention] no path {}runs on {}{}",
         scores == ScorePrecision::int8 ? "with int8 scores " : "", device.name, refusals);
}

uint32_t AttentionChoice::subgroup_rows() const {
    return tile.row_tiles * (path == AttentionPath::scalar ? lanes : matrix.m);
}

TileShape AttentionChoice::block() const {
    return {tile.subgroups * subgroup_rows(), tile.keys};
}

AttentionChoice choose_attention(const vk::DeviceInfo& device, const AttentionProblem& problem,
                                 TileShape granularity, AttentionPath wanted) {
    const AttentionPath path = choose_path(device, problem.dtype, wanted, problem.scores);
    AttentionChoice choice{.path = path,
                           .emulated = is_emulated(path, device),
                           .matrix = {},
                           .score_k = 0,
                           .lanes = device.limits.subgroup_size,
                           .tile = {1, 16, 1}};
    if (path == AttentionPath::scalar) {  // see tile_scalar.glsl
        if (is_cpu(device))
            choice.tile.row_tiles = 2;
        else  // a row each: no more than the pattern's blocks have
            choice.lanes = granularity.q ? std::clamp(std::bit_floor(granularity.q), 16u, 64u) : 64;
    } else {
        choice.matrix = matrix_shape(path, device);
        if (problem.scores == ScorePrecision::int8) choice.score_k = int8_k(path, device);
        const auto measured = measured_tile(path, device, problem, granularity);
        choice.tile = measured ? *measured : matrix_tile(path, device, problem, granularity);
    }
    return choice;
}

TileCandidates attention_tiles(const vk::DeviceInfo& device, const AttentionProblem& problem,
                               TileShape granularity, AttentionPath wanted) {
    const AttentionPath path = choose_path(device, problem.dtype, wanted, problem.scores);
    if (path == AttentionPath::scalar || std::getenv("FOVEA_TILE")) return {};
    const AttentionTile rule = matrix_tile(path, device, problem, granularity);
    TileCandidates candidates{class_of(path, problem, granularity), {to_string(rule)}};
    for (const AttentionTile& tile : kTiles)
        if (tile != rule && is_candidate(path, device, problem, granularity, tile))
            candidates.tiles.push_back(to_string(tile));
    return candidates;
}

AttentionKernel attention_kernel(const AttentionChoice& c, const vk::DeviceInfo& device,
                                 const AttentionProblem& p, const ElementPlaces& places) {
    const AttentionTile& t = c.tile;
    AttentionKernel kernel;
    kernel.constants = {t.subgroups * c.lanes, p.head_dim, p.v_dim, t.keys, p.flags};
    const auto add = [&](std::initializer_list<uint32_t> more) {
        kernel.constants.insert(kernel.constants.end(), more);
    };
    kernel.full_subgroups = c.path != AttentionPath::scalar;
    if (c.path == AttentionPath::scalar) {
        const bool cpu = is_cpu(device);
        const bool hand_round = cpu && c.lanes >= 2 && c.lanes <= 2 * t.keys;
        kernel.shader =
            p.dtype == DType::f16 ? &shader::attention_scalar_f16 : &shader::attention_scalar_f32;
        add({t.row_tiles, !cpu, hand_round});
        return kernel;
    }
    const bool khr = c.path == AttentionPath::khr;
    kernel.shader = &module_of(c.path, p.scores, c.emulated);
    add({t.subgroups, c.matrix.m, c.matrix.n, c.matrix.k});
    if (!khr) add({t.row_tiles, places.rows, places.columns, t.unroll});
    if (p.scores == ScorePrecision::int8) add({c.score_k});
    return kernel;
}

std::vector<PathSupport> attention_paths(const vk::DeviceInfo& device, DType dtype,
                                         ScorePrecision scores) {
    std::vector<PathSupport> paths;
    for (const AttentionPath path : kFastestFirst)
        paths.push_back({path, supports(path, device, dtype, scores)});
    return paths;
}

}  // namespace fovea
