#include "apps/bench/shapes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <set>

#include "backend/error.h"
#include "backend/patterns/block_sparse.h"
#include "backend/patterns/dense.h"
#include "backend/patterns/registry.h"
#include "backend/patterns/reordered.h"

namespace fovea::apps::bench {
namespace {

using Names = std::vector<std::string>;

struct Name {
    const char *name, *help;
};

constexpr Name kNames[] = {
    {"small", "a few hundred tokens, small products: seconds on a CPU"},
    {"flux", "FLUX.1 at 1024x1024, text included: 24 heads x 4,608 x 128; its products, blocks"},
    {"flux4k", "FLUX.1's heads on 256x256 tokens"},
    {"sd3", "Stable Diffusion 3 at 1024x1024: 24 x 4,429 x 64"},
    {"dit256", "DiT-XL/2 at 256x256: 16 x 256 x 72"},
    {"dit512", "DiT-XL/2 at 512x512: 16 x 1,024 x 72; its products, block and denoiser"},
    {"sam-global", "Segment Anything, ViT-B: 12 x 4,096 x 64"},
    {"sam-window", "its windows: 25 of 14x14 tokens, 12 x 196 x 64 each"},
    {"wan1.3b-480p", "Wan 2.1 1.3B: 12 heads x 21x30x52 x 128; its products, block"},
    {"wan1.3b-720p", "12 heads x 21x45x80 x 128"},
    {"wan14b-480p", "Wan 2.1 14B: 40 heads x 21x30x52 x 128; its block"},
    {"wan14b-720p", "40 heads x 21x45x80 x 128"},
    {"hunyuan", "HunyuanVideo 720p: 24 x 118,800 x 128; its double block"},
    {"cogvideox", "CogVideoX: 48 x 17,776 x 64"},
    {"targets", "sparse video attention at 65,536 to 115,200 tokens: windows, bands, blocks"},
    {"square", "products of 4096^3 and 8192^3"},
    {"model", "products and convolutions of the default model"},
    {"vae", "3x3 convolutions of a 1024x1024 autoencoder"},
};

std::vector<AttentionShape> all_attention() {
    const std::vector<uint32_t> video{30, 48, 80};
    return {
        {"small", 4, {16, 16}, 64, 1, {"dense", "neighborhood:7x7", "block_sparse:64:density=0.3"}},
        {"small", 2, {4, 8, 8}, 40, 1, {"dense", "neighborhood:3x5x5:stride=1x2x2", "perturbed"}},
        {"flux", 24, {4608}, 128},
        {"flux4k", 24, {256, 256}, 128},
        {"sd3", 24, {4429}, 64},
        {"dit256", 16, {16, 16}, 72},
        {"dit512", 16, {32, 32}, 72},
        {"sam-global", 12, {64, 64}, 64},
        {"sam-window", 12, {14, 14}, 64, 25},
        {"wan1.3b-480p", 12, {21, 30, 52}, 128},
        {"wan1.3b-720p", 12, {21, 45, 80}, 128},
        {"wan14b-480p", 40, {21, 30, 52}, 128},
        {"wan14b-720p", 40, {21, 45, 80}, 128},
        {"hunyuan", 24, {33, 45, 80}, 128},
        {"cogvideox", 48, {17776}, 64},
        {"targets",
         24,
         video,
         128,
         1,
         {"neighborhood:18x24x24:stride=16x8x8", "neighborhood:18x24x24", "perturbed",
          "block_sparse:64:density=0.1", "block_sparse:64:density=0.2",
          "block_sparse:64:density=0.3", "block_sparse:128:density=0.1",
          "block_sparse:128:density=0.2", "block_sparse:128:density=0.3"}},
        {"targets", 24, {256, 256}, 128, 1, {"neighborhood:80x80:stride=16x16"}},
        {"targets", 40, {21, 45, 80}, 128, 1, {"radial:decay=0.2:sink=1"}},
    };
}

std::vector<GemmShape> all_gemm() {
    return {{"small", 64, 192, 768},
            {"small", 128, 128, 128},
            {"square", 4096, 4096, 4096},
            {"square", 8192, 8192, 8192},
            {"dit512", 1024, 1152, 3456},
            {"dit512", 1024, 1152, 1152},
            {"dit512", 1024, 1152, 4608},
            {"dit512", 1024, 4608, 1152},
            {"flux", 4608, 3072, 9216},
            {"flux", 4608, 3072, 12288},
            {"flux", 4608, 12288, 3072},
            {"wan1.3b-480p", 32760, 1536, 1536},
            {"wan1.3b-480p", 32760, 1536, 8960},
            {"wan1.3b-480p", 32760, 8960, 1536},
            {"model", 512, 256, 256},
            {"model", 512, 256, 832},
            {"model", 512, 832, 256},
            {"model", 64, 192, 768},
            {"model", 2, 256, 1536}};
}

std::vector<ConvShape> all_conv() {
    return {{"small", 32, 16, 16},  {"small", 32, 3, 24, 2}, {"model", 256, 64, 64},
            {"model", 128, 64, 64}, {"model", 64, 64, 64},   {"model", 32, 64, 64},
            {"model", 256, 12, 64}, {"model", 256, 64, 3},   {"model", 256, 3, 24, 2},
            {"vae", 128, 512, 512}, {"vae", 256, 512, 512},  {"vae", 512, 256, 256},
            {"vae", 1024, 128, 128}};
}

std::vector<ModelShape> all_models() {
    using enum BlockKind;
    const std::array<int, 3> axes{8, 12, 12}, flux{16, 56, 56}, wan_axes{44, 42, 42};
    const std::vector<uint32_t> video{21, 30, 52}, small{8, 8};
    const std::vector<std::string> on_32{"dense", "neighborhood:16x16:stride=8x8"},
        on_64{"dense", "neighborhood:24x24:stride=8x8"},
        on_video{"dense", "neighborhood:8x16x24:stride=4x8x8", "radial:decay=0.2:sink=1"};
    return {
        {"small", "small dit", dit, small, 2, 24, 96, 0, 0, {}, 0, {"dense", "neighborhood:5x5"}},
        {"small", "small dit model", dit, small, 2, 24, 96, 0, 2, {}, 0, {"dense"}},
        {"small",
         "small wan",
         wan,
         {4, 6, 8},
         2,
         32,
         160,
         24,
         0,
         axes,
         1e4f,
         {"dense", "neighborhood:3x3x5", "radial:block=16:decay=0.5:sink=1"}},
        {"small",
         "small double",
         dual,
         {3, 4, 8},
         2,
         32,
         128,
         24,
         0,
         axes,
         256,
         {"dense", "neighborhood:3x3x5"}},
        {"small",
         "small single",
         single,
         small,
         2,
         32,
         128,
         24,
         0,
         axes,
         1e4f,
         {"dense", "neighborhood:5x5"}},
        {"dit512", "dit-xl2 block", dit, {32, 32}, 16, 72, 4608, 0, 0, {}, 0, on_32},
        {"dit512", "dit-xl2 denoiser", dit, {32, 32}, 16, 72, 4608, 0, 28, {}, 0, on_32},
        {"flux", "flux double", dual, {64, 64}, 24, 128, 12288, 512, 0, flux, 1e4f, on_64},
        {"flux", "flux single", single, {64, 64}, 24, 128, 12288, 512, 0, flux, 1e4f, on_64},
        {"wan1.3b-480p", "wan1.3b-480p block", wan, video, 12, 128, 8960, 512, 0, wan_axes, 1e4f,
         on_video},
        {"wan14b-480p", "wan14b-480p block", wan, video, 40, 128, 13824, 512, 0, wan_axes, 1e4f,
         on_video},
        {"hunyuan",
         "hunyuan double",
         dual,
         {33, 45, 80},
         24,
         128,
         12288,
         256,
         0,
         flux,
         256,
         {"dense", "neighborhood:15x24x24:stride=3x8x8", "radial:decay=0.95"}},
    };
}

void require_known(const std::string& name) {
    Names known;
    for (const Name& entry : kNames) known.emplace_back(entry.name);
    require(std::find(known.begin(), known.end(), name) != known.end(),
            "[bench] --shapes {} found, expected of {}, HEADS:GRID:HEAD_DIM as in "
            "24:30x48x80:128, or MxKxN as in 4608x3072x9216",
            name, fmt::join(known, ", "));
}

/// M, K and N; false for everything else.
bool parse_product(const std::string& text, GemmShape& shape) {
    int end = -1;
    const int found = std::sscanf(text.c_str(), "%" SCNd64 "x%" SCNd64 "x%" SCNd64 "%n", &shape.m,
                                  &shape.k, &shape.n, &end);
    shape.set = text;
    return found == 3 && end == static_cast<int>(text.size()) &&
           std::min({shape.m, shape.k, shape.n}) > 0 &&
           std::max({shape.m, shape.k, shape.n}) <= 1 << 20;
}

bool is_wanted(const std::string& set, const Names& names, bool cpu) {
    if (names.empty()) return (set == "small") == cpu;
    return std::find(names.begin(), names.end(), set) != names.end();
}

template <typename Shape>
std::vector<Shape> choose(std::vector<Shape> all, const Names& names, bool cpu) {
    GemmShape product;
    for (const std::string& name : names)
        if (name.find(':') == std::string::npos && !parse_product(name, product))
            require_known(name);
    std::erase_if(all, [&](const Shape& shape) { return !is_wanted(shape.set, names, cpu); });
    return all;
}

/// "24:30x48x80:128"
AttentionShape parse_shape(const std::string& text) {
    uint32_t heads = 0, dim = 0, axes[3] = {0, 0, 0};
    std::vector<uint32_t> grid;
    int end = -1;
    const char* at = text.c_str();
    if (std::sscanf(at, "%u:%ux%ux%u:%u%n", &heads, axes, axes + 1, axes + 2, &dim, &end) == 5)
        grid = {axes[0], axes[1], axes[2]};
    else if (std::sscanf(at, "%u:%ux%u:%u%n", &heads, axes, axes + 1, &dim, &end) == 4)
        grid = {axes[0], axes[1]};
    else if (std::sscanf(at, "%u:%u:%u%n", &heads, axes, &dim, &end) == 3)
        grid = {axes[0]};
    double tokens = 1;
    for (const uint32_t extent : grid) tokens *= extent;
    require(end == static_cast<int>(text.size()) && heads > 0 && heads <= 1024 && dim > 0 &&
                dim <= 256 && dim % 8 == 0 && tokens >= 1 && tokens <= 1 << 20,
            "[bench] --shapes {} found, expected HEADS:GRID:HEAD_DIM as in 24:30x48x80:128, up to "
            "1024 heads and 2^20 tokens, head_dim a multiple of 8 up to 256",
            text);
    return {text, heads, grid, dim};
}

Pattern random_blocks(const std::string& spec, uint32_t tokens) {
    uint32_t block = 0;
    double density = -1;
    int end = -1;
    const int found =
        std::sscanf(spec.c_str(), "block_sparse:%u:density=%lf%n", &block, &density, &end);
    require(found == 2 && end == static_cast<int>(spec.size()) && block >= 8 && block <= 4096 &&
                density >= 0 && density <= 1,
            "[bench] pattern {} found, expected block_sparse:BLOCK:density=SHARE as in "
            "block_sparse:128:density=0.1",
            spec);
    const uint32_t blocks = (tokens + block - 1) / block;
    std::vector<uint8_t> mask(size_t{blocks} * blocks);
    uint64_t state = 1;
    for (size_t i = 0; i < mask.size(); ++i) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        mask[i] = i / blocks == i % blocks || double(state >> 40) / double(1 << 24) < density;
    }
    return block_sparse(BlockSparseOptions{
        .q_blocks = blocks, .k_blocks = blocks, .block_q = block, .block_k = block, .mask = mask});
}

Pattern orders_in_turn(const std::string& spec, const AttentionShape& shape) {
    uint32_t block = 0;
    int end = -1;
    const int found = std::sscanf(spec.c_str(), "reordered:%u%n", &block, &end);
    require(found == 1 && end == static_cast<int>(spec.size()) && block >= 8 && block <= 4096 &&
                shape.grid.size() == 3,
            "[bench] pattern {} on {} axes found, expected reordered:BLOCK as in reordered:128, on "
            "3 axes",
            spec, shape.grid.size());
    const uint32_t blocks = (shape.tokens() + block - 1) / block, band = (blocks + 14) / 15;
    std::vector<uint8_t> mask(size_t{blocks} * blocks);
    for (uint32_t i = 0; i < blocks; ++i)
        for (uint32_t j = 0; j < blocks; ++j)
            mask[size_t{i} * blocks + j] =
                std::max(i, j) - std::min(i, j) < band || (i + j) % 7 == 0;
    std::vector<AxisOrder> orders;
    for (uint32_t h = 0; h < shape.heads; ++h) orders.push_back(static_cast<AxisOrder>(h % 6));
    return reordered({.grid = Grid{shape.grid},
                      .orders = orders,
                      .block_q = block,
                      .block_k = block,
                      .mask = mask});
}

}  // namespace

std::string AttentionShape::name() const {
    const std::string inner = fmt::format("{}x{}x{}", heads, tokens(), head_dim);
    return batch == 1 ? inner : fmt::format("{}x{}", batch, inner);
}

std::vector<AttentionShape> attention_shapes(const Names& names, bool cpu) {
    std::vector<AttentionShape> shapes = choose(all_attention(), names, cpu);
    for (const std::string& name : names)
        if (name.find(':') != std::string::npos) shapes.push_back(parse_shape(name));
    return shapes;
}

std::vector<GemmShape> gemm_shapes(const Names& names, bool cpu) {
    std::vector<GemmShape> shapes = choose(all_gemm(), names, cpu);
    GemmShape product;
    for (const std::string& name : names)
        if (parse_product(name, product)) shapes.push_back(product);
    return shapes;
}

std::vector<ConvShape> conv_shapes(const Names& names, bool cpu) {
    return choose(all_conv(), names, cpu);
}

std::vector<ModelShape> model_shapes(const Names& names, bool cpu) {
    return choose(all_models(), names, cpu);
}

const char* name_of(BlockKind kind) {
    constexpr const char* kNamesOfKinds[] = {"dit", "wan", "double", "single"};
    return kNamesOfKinds[static_cast<size_t>(kind)];
}

std::string shapes_help() {
    std::string text;
    for (const Name& entry : kNames) text += fmt::format("  {:<13} {}\n", entry.name, entry.help);
    return text;
}

std::vector<float> bench_perturb(const std::string& spec, uint32_t heads) {
    if (spec != "perturbed" && !spec.starts_with("perturbed:")) return {};
    double share = 1;
    int end = static_cast<int>(spec.size());
    if (spec != "perturbed") std::sscanf(spec.c_str(), "perturbed:%lf%n", &share, &end);
    require(end == static_cast<int>(spec.size()) && share > 0 && share <= 1,
            "[bench] pattern {} found, expected perturbed or perturbed:SHARE as in perturbed:0.5",
            spec);
    std::vector<float> u(heads, 0.0f);
    std::fill_n(u.begin(), std::max<int64_t>(1, std::llround(share * heads)), 1.0f);
    return u;
}

Pattern bench_pattern(const std::string& spec, const AttentionShape& shape) {
    if (!bench_perturb(spec, shape.heads).empty()) return dense();
    if (spec.starts_with("block_sparse:")) return random_blocks(spec, shape.tokens());
    if (spec.starts_with("reordered:")) return orders_in_turn(spec, shape);
    return parse_pattern(spec, Grid{shape.grid});
}

}  // namespace fovea::apps::bench
