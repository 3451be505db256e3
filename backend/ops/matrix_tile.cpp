#include "backend/ops/matrix_tile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "backend/error.h"
#include "backend/log.h"
#include "backend/ops/dispatch.h"
#include "backend/ops/matrix_units.h"
#include "shaders.h"
#include "shaders/gemm/matrix_params.h"

namespace fovea {
namespace {

/// Of tiles alike in cost the first is taken unforced; the others of its size are for measurements.
/// What a subgroup reads from shared memory for a product falls with its own rows and columns, and
/// 64 × 64 sums are what the registers of 32 lanes hold.
constexpr MatrixTile kTiles[] = {
    {128, 256, 32, 2, 4, 1, 1}, {128, 256, 32, 2, 4, 1, 2}, {128, 256, 16, 2, 4, 2, 2},
    {256, 128, 32, 4, 2, 1, 1}, {256, 128, 16, 4, 2, 2, 2}, {128, 128, 32, 2, 2, 1, 1},
    {128, 128, 32, 2, 2, 1, 2}, {128, 128, 16, 2, 2, 2, 2}, {128, 128, 32, 2, 2, 2, 1},
    {128, 128, 64, 2, 2, 1, 1}, {128, 64, 32, 2, 1, 1, 1},  {128, 64, 64, 2, 2, 1, 1},
    {64, 64, 64, 2, 2, 1, 1},   {64, 64, 32, 2, 2, 2, 2},   {32, 64, 64, 2, 2, 1, 1},
    {32, 32, 64, 2, 2, 1, 1},   {128, 16, 64, 4, 1, 1, 1},  {96, 128, 32, 2, 2, 1, 1},
    {160, 128, 32, 2, 2, 1, 1}, {64, 128, 32, 1, 2, 1, 1},  {64, 128, 32, 2, 2, 1, 1},
    {64, 64, 32, 1, 2, 1, 1},
};

/// The device's product that the kernel works with; all zero if none fits.
vk::MatrixShape matrix_shape(const vk::DeviceInfo& device) {
    const vk::MatrixShape usual{16, 16, 16};
    const auto& shapes = device.fp16_matrices;
    if (const vk::MatrixShape m = forced_matrix_shape(device); m != vk::MatrixShape{}) return m;
    if (shapes.empty() || std::find(shapes.begin(), shapes.end(), usual) != shapes.end())
        return usual;  // none: emulated
    for (const auto& shape : shapes)
        if (shape.n % 8 == 0 && shape.k % 8 == 0 && 32 % shape.m == 0 && 16 % shape.n == 0 &&
            32 % shape.k == 0)
            return shape;
    return {};
}

uint32_t workgroup_of(const vk::DeviceInfo& device, const MatrixTile& t) {
    return t.subgroup_rows * t.subgroup_columns * device.limits.subgroup_size;
}

uint64_t shared_bytes(const MatrixTile& t, vk::MatrixShape m) {
    const uint64_t x = uint64_t{t.rows} * ((t.depth / 8) | 1);
    const uint64_t w = uint64_t{t.depth} * ((t.columns / 8) | 1);
    const uint64_t strips = t.subgroup_rows * m.m * (t.columns / 4 + t.subgroup_columns);
    return std::max(t.buffers * (x + w), strips) * 16;
}

uint64_t tiles_of(const MatrixTile& t, int64_t m, int64_t n) {
    const auto count = [](int64_t extent, uint32_t tile) {
        return (static_cast<uint64_t>(extent) + tile - 1) / tile;
    };
    return count(m, t.rows) * count(n, t.columns);
}

uint32_t slabs_of(const MatrixTile& t, int64_t k) {
    return (static_cast<uint32_t>(k) + t.depth - 1) / t.depth;
}

std::optional<MatrixTile> parse_tile(const std::string& text) {
    MatrixTile t;
    const int found =
        std::sscanf(text.c_str(), "%ux%ux%u:%ux%u:%ux%u:%u", &t.rows, &t.columns, &t.depth,
                    &t.subgroup_rows, &t.subgroup_columns, &t.buffers, &t.ahead, &t.splits);
    return found >= 7 && text == to_string(t) ? std::optional(t) : std::nullopt;
}

std::optional<MatrixTile> forced_tile(const vk::DeviceInfo& device) {
    const char* text = std::getenv("FOVEA_GEMM_TILE");
    if (!text) return std::nullopt;
    const auto t = parse_tile(text);
    require(
        t.has_value(),
        "[gemm] FOVEA_GEMM_TILE is "
        "ROWSxCOLUMNSxDEPTH:SUBGROUPSxSUBGROUPS:BUFFERSxAHEAD[:SPLITS] such as {}, found \"{}\"",
        to_string(kTiles[0]), text);
    const vk::Support support = supports(device, *t);
    require(support.ok, "[gemm] tile {} of FOVEA_GEMM_TILE cannot run on {}: {}", text, device.name,
            support.why);
    return t;
}

constexpr uint32_t kRound = 2;  ///< ROUND of the kernel

/// Parts of k, of which none is empty: whole numbers of the kernel's rounds of slabs.
struct Splits {
    uint32_t count, slabs;
};

Splits splits_of(const MatrixTile& t, int64_t k) {
    const uint32_t slabs = slabs_of(t, k);
    uint32_t each = (slabs + t.splits - 1) / t.splits;
    each = (each + kRound - 1) / kRound * kRound;
    return {(slabs + each - 1) / each, each};
}

constexpr int64_t kShortest = 256;  ///< part of k that is worth a workgroup of its own

/// Nanoseconds, fitted to times on an H200. Subgroups of 64 × 64 sums run kEnoughWorkgroups × 8 at
/// a time, and smaller tiles no more, for shared memory. A step along k takes longer the more sums
/// a subgroup has and the more rows and columns are read at once; a tile's start and end hide
/// behind others where several fit together. Parts of k cost a dispatch that adds them, and its
/// traffic.
double estimated_time(const MatrixTile& t, int64_t m, int64_t n, int64_t k) {
    const uint32_t subgroups = t.subgroup_rows * t.subgroup_columns;
    const uint64_t at_once = std::max<uint64_t>(8 * kEnoughWorkgroups / subgroups, 1);
    const uint64_t waves = (tiles_of(t, m, n) * t.splits + at_once - 1) / at_once;
    const double step = 3.6 + 0.0082 * t.rows * t.columns / subgroups +
                        6.4e-5 * static_cast<double>(at_once * (t.rows + t.columns));
    const double ends = 375.0 * subgroups;
    const double sum = t.splits == 1 ? 0 : 5000 + static_cast<double>(m * n) * 8 * t.splits / 3000;
    // Sums beyond 64 × 64 in a subgroup pay where all tiles run at once; after a first wave others
    // are as fast.
    const double large = t.rows * t.columns / subgroups > 64 * 64 && waves > 1 ? 1.1 : 1;
    return large * static_cast<double>(waves) * (static_cast<double>(k) / t.splits * step + ends) +
           sum;
}

struct Estimated {
    MatrixTile tile;
    double time;
};

bool is_faster(const Estimated& a, const Estimated& b) {
    return a.time < b.time;
}

/// All that the device can run, in the order of kTiles.
std::vector<Estimated> estimated_tiles(const vk::DeviceInfo& device, int64_t m, int64_t n,
                                       int64_t k) {
    std::vector<Estimated> tiles;
    for (MatrixTile t : kTiles) {
        if (!supports(device, t).ok) continue;
        for (const uint32_t splits : {1, 2, 3, 4, 6, 8}) {
            if (splits > 1 && (k / splits < kShortest || tiles_of(t, m, n) >= kEnoughWorkgroups))
                break;
            t.splits = splits;
            tiles.push_back({t, estimated_time(t, m, n, k)});
        }
    }
    require(!tiles.empty(), "[gemm] no tile for matrix units runs on {}: force the scalar path",
            device.name);
    return tiles;
}

/// Of m its power of two and whether it is beyond the middle to the next.
std::string class_of(std::string_view op, int64_t m, int64_t n, int64_t k) {
    const uint64_t rows = static_cast<uint64_t>(m), power = size_class(rows);
    return fmt::format("{} m {} n {} k {}", op,
                       rows >= power + power / 2 ? power + power / 2 : power, n, k);
}

/// Rows of tiles in a band, bands being alike: tiles that run at once are about as many elements
/// high as wide, which reads the fewest rows and columns.
uint32_t band_of(const MatrixTile& t, int64_t m, int64_t n) {
    const uint64_t across = tiles_of(t, 1, n), down = tiles_of(t, m, 1);
    const auto square = static_cast<uint64_t>(
        std::lround(std::sqrt(static_cast<double>(kEnoughWorkgroups * t.columns) / t.rows)));
    const uint64_t high = std::max(square, kEnoughWorkgroups / across);
    const uint64_t bands = (down + high - 1) / high;
    return static_cast<uint32_t>((down + bands - 1) / bands);
}

vk::Support path_support(AttentionPath path, const vk::DeviceInfo& device, DType dtype) {
    vk::Support support = matrix_support(path == AttentionPath::nv2 ? device.nv2 : device.khr,
                                         device, shader::gemm_matrix, dtype);
    if (support.ok && matrix_shape(device) == vk::MatrixShape{})
        return {false, "no matrix shape that the kernel can use"};
    return support;
}

}  // namespace

std::string to_string(const MatrixTile& t) {
    const std::string whole = fmt::format("{}x{}x{}:{}x{}:{}x{}", t.rows, t.columns, t.depth,
                                          t.subgroup_rows, t.subgroup_columns, t.buffers, t.ahead);
    return t.splits == 1 ? whole : fmt::format("{}:{}", whole, t.splits);
}

std::span<const MatrixTile> matrix_tiles() {
    return kTiles;
}

vk::Support supports(const vk::DeviceInfo& device, const MatrixTile& t) {
    const vk::MatrixShape m = matrix_shape(device);
    const auto positive = {t.rows,    t.columns, t.depth, m.m, t.subgroup_rows, t.subgroup_columns,
                           t.buffers, t.ahead,   t.splits};
    if (std::find(positive.begin(), positive.end(), 0u) != positive.end())
        return {false, "found 0, expected numbers above it"};
    const uint32_t workgroup = workgroup_of(device, t);
    if (workgroup > device.limits.workgroup_invocations)
        return {false, fmt::format("{} invocations, the device allows {}", workgroup,
                                   device.limits.workgroup_invocations)};
    if (t.rows % (t.subgroup_rows * m.m) != 0 || t.columns % (t.subgroup_columns * m.n) != 0 ||
        t.depth % m.k != 0 || t.buffers > 2 || t.ahead > 2)
        return {false,
                fmt::format("a subgroup's part must consist of {}x{}x{} matrices, with 1 or 2 "
                            "buffers and slabs ahead",
                            m.m, m.n, m.k)};
    if (workgroup % (t.depth / 8) != 0 || workgroup % (t.columns / 8) != 0)
        return {false, fmt::format("{} invocations do not divide into rows of {} and {} vectors",
                                   workgroup, t.depth / 8, t.columns / 8)};
    if (shared_bytes(t, m) > device.limits.shared_memory)
        return {false, fmt::format("{} bytes of shared memory, the device has {}",
                                   shared_bytes(t, m), device.limits.shared_memory)};
    return {true, ""};
}

MatrixTile choose_matrix_tile(const vk::DeviceInfo& device, int64_t m, int64_t n, int64_t k,
                              std::string_view op) {
    if (const auto forced = forced_tile(device)) return *forced;
    const auto shape_class = [&] { return class_of(op, m, n, k); };
    if (const auto text = tuned_tile(device, shape_class)) {
        const auto tile = parse_tile(*text);
        if (tile && supports(device, *tile).ok) return *tile;
        log::debug("tuning: {}: tile {} does not fit: ignored", shape_class(), *text);
    }
    const std::vector<Estimated> tiles = estimated_tiles(device, m, n, k);
    return std::min_element(tiles.begin(), tiles.end(), is_faster)->tile;
}

TileCandidates matrix_tile_candidates(const vk::DeviceInfo& device, int64_t m, int64_t n, int64_t k,
                                      std::string_view op) {
    if (std::getenv("FOVEA_GEMM_TILE")) return {};
    constexpr double kHopeless = 3;  ///< times the least estimate
    std::vector<Estimated> tiles = estimated_tiles(device, m, n, k);
    std::stable_sort(tiles.begin(), tiles.end(), is_faster);
    TileCandidates candidates{class_of(op, m, n, k), {}};
    for (const Estimated& each : tiles)
        if (each.time <= kHopeless * tiles.front().time)
            candidates.tiles.push_back(to_string(each.tile));
    return candidates;
}

AttentionPath product_path(const vk::DeviceInfo& device, DType dtype, int64_t k,
                           AttentionPath wanted) {
    const bool by_option = wanted != AttentionPath::automatic;
    wanted = wanted_path(wanted);
    if (wanted == AttentionPath::scalar) return wanted;
    std::string why;
    if (dtype != DType::f16)
        why = fmt::format("matrix units multiply f16, the tensors are {}", name_of(dtype));
    else if (k % 8 != 0)
        why = fmt::format("x's rows are multiples of 8 elements there, found {}", k);
    const bool fits = why.empty();
    for (const AttentionPath path : {AttentionPath::nv2, AttentionPath::khr}) {
        if (wanted != AttentionPath::automatic && wanted != path) continue;
        const vk::Support support = path_support(path, device, DType::f16);
        const bool emulated = support.ok && lacks_matrices(device);
        if (support.ok && fits && (!emulated || wanted == path)) return path;
        const std::string& reason = support.ok ? why : support.why;
        require(wanted != path || (support.ok && !by_option), "[gemm] path {} cannot run on {}: {}",
                name_of(path), device.name, reason);
        log::debug("gemm: not path {}: {}", name_of(path), reason);
    }
    return AttentionPath::scalar;
}

void dispatch_matrix_product(vk::Stream& stream, const MatrixProduct& p) {
    vk::Device& device = stream.device();
    const vk::DeviceInfo& info = device.info();
    tune_on_first_use(
        device, p.op, [&] { return matrix_tile_candidates(info, p.m, p.n, p.k, p.op); },
        [&](vk::Stream& own) {
            MatrixProduct copy = p;
            copy.y = empty(device, p.y.shape(), p.y.dtype());
            dispatch_matrix_product(own, copy);
        });
    const MatrixTile t = choose_matrix_tile(info, p.m, p.n, p.k, p.op);
    const vk::MatrixShape shape = matrix_shape(info);
    const bool emulated = lacks_matrices(info), narrow_n = p.n % 8 != 0;
    const auto module = [&](const vk::Shader& wide, const vk::Shader& wide_emulated,
                            const vk::Shader& narrow, const vk::Shader& narrow_emulated) {
        return narrow_n ? (emulated ? &narrow_emulated : &narrow)
                        : (emulated ? &wide_emulated : &wide);
    };
    const vk::Shader& shader =
        p.convolution ? *module(shader::conv2d_matrix, shader::conv2d_matrix_emulated,
                                shader::conv2d_matrix_narrow, shader::conv2d_matrix_narrow_emulated)
                      : *module(shader::gemm_matrix, shader::gemm_matrix_emulated,
                                shader::gemm_matrix_narrow, shader::gemm_matrix_narrow_emulated);
    const vk::Program& program =
        device.program(shader,
                       {/*WORKGROUP=*/workgroup_of(info, t),
                        /*SUBGROUP_ROWS=*/t.subgroup_rows,
                        /*SUBGROUP_COLUMNS=*/t.subgroup_columns,
                        /*ROW_MATRICES=*/t.rows / t.subgroup_rows / shape.m,
                        /*COLUMN_MATRICES=*/t.columns / t.subgroup_columns / shape.n,
                        /*DEPTH=*/t.depth,
                        /*BUFFERS=*/t.buffers,
                        /*AHEAD=*/t.ahead,
                        /*MAT_M=*/shape.m,
                        /*MAT_N=*/shape.n,
                        /*MAT_K=*/shape.k,
                        /*RAGGED=*/p.k % (kRound * t.depth) != 0},
                       true);
    const auto u32 = [](int64_t number) { return static_cast<uint32_t>(number); };
    const Splits splits = splits_of(t, p.k);
    MatrixParams params{};
    params.m = u32(p.m);
    params.n = u32(p.n);
    params.k = u32(p.k);
    params.flags = (p.bias ? MATRIX_BIAS : 0) | (p.gate ? MATRIX_GATE : 0) |
                   (p.residual ? MATRIX_RESIDUAL : 0) |
                   (p.convolution ? MATRIX_RESIDUAL_INSIDE : 0);
    params.activation = static_cast<uint32_t>(p.activation);
    params.gate_rows = p.gate ? u32(p.m / p.gate.dim(0)) : 1;
    params.splits = splits.count;
    params.split_slabs = splits.slabs;
    params.band = band_of(t, p.m, p.n);
    if (const auto& c = p.convolution) {
        params.channels = u32(c->channels);
        params.height = u32(c->height);
        params.width = u32(c->width);
        params.rows = u32(c->rows);
        params.columns = u32(c->columns);
        params.stride = u32(c->stride);
        params.kernel = u32(c->kernel);
    }
    Tensor partial;
    const int64_t vectors = (p.n + 7) / 8;
    if (splits.count > 1) partial = empty(device, {splits.count, p.m, 8 * vectors}, DType::f32);
    vk::Groups groups = groups_for(tiles_of(t, p.m, p.n), 1);
    groups.z = splits.count;
    // With parts y is written below, by the sum of them.
    stream.dispatch(program,
                    {read(p.x), read(p.w), partial ? read(Tensor{}) : write(p.y), read(p.bias),
                     read(p.residual), read(p.gate), partial ? write(partial) : read(partial)},
                    params, groups, p.op);
    if (!partial) return;
    stream.dispatch(
        device.program(narrow_n ? shader::sum_splits_narrow : shader::sum_splits, {kElementGroup}),
        {read(Tensor{}), read(Tensor{}), write(p.y), read(p.bias), read(p.residual), read(p.gate),
         read(partial)},
        params, groups_for(static_cast<uint64_t>(p.m * vectors), kElementGroup), p.op);
}

}  // namespace fovea
