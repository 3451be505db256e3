#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <memory>

#include "apps/app.h"
#include "apps/plan_case.h"
#include "apps/plan_draw.h"
#include "backend/error.h"
#include "backend/ops/attention_kernel.h"
#include "backend/patterns/registry.h"
#include "backend/vk/stream.h"
#include "pipelines/attention_case.h"

namespace fovea::apps {
namespace {

struct PlanOptions {
    std::string grid, pattern = "neighborhood", window, stride, dilation, causal, file, tile;
    std::string device, path = "automatic", precision = "fp16", draw;
    int heads = 1, head_dim = 64, batch = 1, extra = 0, boxes = 6, draw_size = 512, head = 0;
    int64_t query = -1;
    double peak = 0, efficiency = 0.6;
    bool has_causal = false, json = false;

    DType dtype() const { return precision == "fp32" ? DType::f32 : DType::f16; }
};

std::vector<uint32_t> sizes(const std::string& text, const char* option, const char* example) {
    std::vector<uint32_t> values;
    for (const char *at = text.data(), *end = at + text.size();; ++at) {
        uint32_t value = 0;
        const auto [next, code] = std::from_chars(at, end, value);
        require(code == std::errc() && value > 0 && (next == end || *next == 'x'),
                "[plan] {} {} found, expected sizes as in {}", option, text, example);
        values.push_back(value);
        if (next == end) return values;
        at = next;
    }
}

/// The registry's spec; --window and its like belong to a bare "neighborhood".
std::string spec_of(const PlanOptions& o) {
    const bool bare = o.pattern == "neighborhood";
    require(bare || (o.window.empty() && o.stride.empty() && o.dilation.empty() && !o.has_causal),
            "[plan] --window, --stride, --dilation or --causal found beside --pattern {}, expected "
            "only beside --pattern neighborhood",
            o.pattern);
    require(!bare || !o.window.empty(),
            "[plan] --pattern neighborhood needs a --window, as in --window 7x7");
    if (!bare) return o.pattern;
    std::string spec = fmt::format("neighborhood:{}", o.window);
    const auto add = [&](const char* name, const std::string& value) {
        if (!value.empty()) spec += fmt::format(":{}={}", name, value);
    };
    add("stride", o.stride);
    add("dilation", o.dilation);
    add("causal", o.has_causal && o.causal.empty() ? "1" : o.causal);
    return spec;
}

PlanCase case_of_spec(const PlanOptions& o) {
    require(!o.grid.empty(), "[plan] --grid is missing, as in --grid 30x48x80");
    const std::string spec = spec_of(o);
    const Grid grid{.shape = sizes(o.grid, "--grid", "30x48x80 or 64x64")};
    double tokens = 1;
    for (const uint32_t extent : grid.shape) tokens *= extent;
    require(grid.shape.size() <= 3 && tokens <= 1 << 20,
            "[plan] --grid {} found, expected 1 to 3 axes and at most 2^20 tokens", o.grid);
    require(o.head_dim % 8 == 0, "[plan] --head-dim {} found, expected a multiple of 8",
            o.head_dim);
    const Pattern pattern = parse_pattern(spec, grid);
    const Grid& own = pattern.grid();
    const auto length = static_cast<uint32_t>(own.shape.empty() ? grid.tokens() : own.tokens());
    require(length <= 1 << 20, "[plan] {} tokens found with the text, expected at most 2^20",
            length);
    return {.name = spec,
            .grid = grid,
            .pattern = pattern,
            .window = parse_neighborhood(spec, grid),
            .q_len = length,
            .kv_len = length,
            .extra = static_cast<uint32_t>(o.extra),
            .heads = static_cast<uint32_t>(o.heads),
            .head_dim = static_cast<uint32_t>(o.head_dim),
            .v_dim = static_cast<uint32_t>(o.head_dim),
            .batch = static_cast<uint32_t>(o.batch),
            .dtype = o.dtype()};
}

PlanCase case_of_file(const PlanOptions& o) {
    const AttentionCase c = read_attention_case(Weights::open(o.file));
    const auto size = [](const HostTensor& x, size_t axis) {
        return x ? static_cast<uint32_t>(x.shape[axis]) : 0;
    };
    return {.name = o.file,
            .grid = c.pattern.grid(),
            .pattern = c.pattern,
            .q_len = size(c.q, 2),
            .kv_len = size(c.k, 2),
            .extra = size(c.k_extra, 2),
            .heads = size(c.q, 1),
            .head_dim = size(c.q, 3),
            .v_dim = size(c.v, 3),
            .batch = size(c.q, 0),
            .dtype = o.dtype()};
}

/// A device where one is asked for, or there; else the reason goes to `why`.
std::unique_ptr<vk::Device> find_device(const PlanOptions& o, std::string& why) {
    try {
        return std::make_unique<vk::Device>(o.device);
    } catch (const Error& error) {
        if (!o.device.empty()) throw;
        why = error.what();
        return nullptr;
    }
}

TileShape tile_of(const PlanOptions& o, const PlanCase& c, const vk::Device* device) {
    if (o.tile.empty() && !device) return {128, 64};
    if (o.tile.empty()) {
        const AttentionProblem problem{.batch = c.batch,
                                       .heads = c.heads,
                                       .kv_heads = c.heads,
                                       .q_len = c.q_len,
                                       .kv_len = c.kv_len,
                                       .extra_len = c.extra,
                                       .head_dim = c.head_dim,
                                       .v_dim = c.v_dim,
                                       .dtype = c.dtype,
                                       .flags = 0};
        return choose_attention(device->info(), problem, c.pattern.granularity(),
                                parse_path(o.path))
            .block();
    }
    const auto tile = sizes(o.tile, "--tile", "128x64");
    require(tile.size() == 2 && tile[0] <= 1024 && tile[1] <= 1024,
            "[plan] --tile {} found, expected QUERIESxKEYS up to 1024x1024", o.tile);
    return {tile[0], tile[1]};
}

PlanModel model_of(const PlanOptions& o, const PlanCase& c, vk::Device* device) {
    if (o.peak > 0) {
        const double rate = o.peak * 1e12 * o.efficiency;
        return {fmt::format("from a peak of {} TFLOP/s of which attention reaches {:.0f} %", o.peak,
                            100 * o.efficiency),
                {AttentionPath::automatic, rate, rate, rate}};
    }
    vk::Stream stream(*device);
    const AttentionRate rate = measure_attention(stream, c.head_dim, c.dtype, parse_path(o.path));
    return {fmt::format("from rates just measured on {}, path {}", device->info().name,
                        name_of(rate.path)),
            rate};
}

uint32_t query_of(const PlanCase& c, int64_t asked) {
    require(asked < int64_t{c.q_len}, "[plan] --query {} found, expected 0 to {}", asked,
            c.q_len - 1);
    if (asked >= 0) return static_cast<uint32_t>(asked);
    if (c.grid.shape.empty()) return c.q_len / 2;
    uint32_t middle = 0;
    for (const uint32_t extent : c.grid.shape) middle = middle * extent + extent / 2;
    return middle;
}

void run(const PlanOptions& o) {
    require_png("plan", "--draw", o.draw);
    parse_path(o.path);  // refused even where nothing is measured
    PlanCase c = o.file.empty() ? case_of_spec(o) : case_of_file(o);
    const uint32_t query = query_of(c, o.query), head = static_cast<uint32_t>(o.head);
    require(head < c.heads, "[plan] --head {} found, expected 0 to {}", head, c.heads - 1);
    std::string no_model;
    const auto device = o.peak > 0 ? nullptr : find_device(o, no_model);
    c.tile = tile_of(o, c, device.get());

    const auto begin = std::chrono::steady_clock::now();
    c.plan = plan(c.pattern, c.tile, c.q_len, c.kv_len, c.extra);
    c.plan_seconds = seconds_since(begin);
    require(c.totals().kept_pairs > 0,
            "[plan] {} keeps no pair of a query and a key: there is nothing to plan", c.name);
    c.boxes = c.pattern.box_costs(c.tile);
    if (c.window) c.settings = perfect_settings(*c.window, c.tile);
    std::optional<PlanModel> model;
    if (device || o.peak > 0) model = model_of(o, c, device.get());
    (o.json ? print_plan_json : print_plan)(c, model ? &*model : nullptr, no_model,
                                            static_cast<size_t>(o.boxes));
    if (o.draw.empty()) return;
    const auto& lists = c.plan.list_of_head;
    save_png(o.draw, draw_plan(c.pattern.head(head), c.plan.lists[lists.empty() ? 0 : lists[head]],
                               c.grid, query, o.draw_size));
}

}  // namespace

void add_plan(CLI::App& app) {
    auto* command = app.add_subcommand(
        "plan",
        "What a sparse attention pattern costs before it runs: pairs, blocks, memory, time");
    auto o = std::make_shared<PlanOptions>();
    command->add_option("--grid", o->grid, "Tokens, as in 30x48x80, 64x64 or 4096");
    command->add_option("--pattern", o->pattern, "Pattern, see below")->capture_default_str();
    command->add_option("--window", o->window, "Keys an axis that a query sees; 0: the whole axis");
    command->add_option("--stride", o->stride, "Queries an axis that share a window");
    command->add_option("--dilation", o->dilation, "Steps between the keys of a window");
    auto* causal = command->add_option("--causal", o->causal,
                                       "Windows end at the query; per axis as in 1x0x0");
    causal->expected(0, 1);
    auto* file = command->add_option(
        "--case", o->file, "Instead: pattern and sizes of a file as fovea attention reads it");
    const auto number = [&](const char* name, int& value, const char* help, int low, int high) {
        command->add_option(name, value, help)->check(CLI::Range(low, high))->capture_default_str();
    };
    number("--heads", o->heads, "Heads", 1, 1024);
    number("--head-dim", o->head_dim, "Values a head, a multiple of 8", 8, 256);
    number("--batch", o->batch, "Batch", 1, 1024);
    number("--extra", o->extra, "Keys beside the grid that all queries see", 0, 1 << 20);
    command->add_option("--precision", o->precision, "Of q, k, v and o: fp16 or fp32")
        ->check(CLI::IsMember({"fp16", "fp32"}))
        ->capture_default_str();
    command->add_option("--tile", o->tile,
                        "Queries x keys of a block (default: the device's, else 128x64)");
    number("--boxes", o->boxes, "Pairs of boxes to list", 1, 100000);
    command->add_option("--device", o->device,
                        "Device index or part of its name (see fovea info); times are for it");
    command->add_option("--path", o->path, "automatic, scalar, khr or nv2")->capture_default_str();
    command->add_option("--peak", o->peak, "TFLOP/s of a device that is not here: measure nothing")
        ->check(CLI::Range(1e-6, 1e6));
    command->add_option("--efficiency", o->efficiency, "Share of --peak that attention reaches")
        ->check(CLI::Range(0.01, 1.0))
        ->capture_default_str();
    command->add_option("--draw", o->draw,
                        "Write a PNG: the block map (dark: full, orange: partial) and what one "
                        "query (red) sees of the grid");
    number("--draw-size", o->draw_size, "Pixels of either half of the PNG", 64, 4096);
    command->add_option("--query", o->query, "Token drawn (default: the middle of the grid)")
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 32));
    number("--head", o->head, "Head drawn, where they differ", 0, 1023);
    command->add_flag("--json", o->json, "Print JSON");
    // The file says what these say.
    for (const char* name : {"--grid", "--pattern", "--window", "--stride", "--dilation",
                             "--causal", "--heads", "--head-dim", "--batch", "--extra"})
        file->excludes(command->get_option(name));
    std::string patterns;
    for (const std::string& line : pattern_help()) patterns += fmt::format("  {}\n", line);
    command->footer(fmt::format(
        "Bounds and gains: FLOP bound is dense work over the pairs kept, the bound of a tile is\n"
        "dense work over the blocks it visits. Times are sums of blocks over measured rates.\n"
        "Patterns:\n{}"
        "Examples:\n"
        "  fovea plan --grid 30x48x80 --heads 24 --head-dim 128 --window 18x24x24\n"
        "  fovea plan --grid 32x32 --window 7x7 --draw mask.png\n"
        "  fovea plan --grid 21x30x52 --pattern radial:decay=0.2:sink=1:block=64 --peak 900\n",
        patterns));
    command->callback([o, causal] {
        o->has_causal = causal->count() > 0;
        run(*o);
    });
}

}  // namespace fovea::apps
