#include "apps/bench/row.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "apps/app.h"
#include "backend/error.h"
#include "backend/ops/attention_kernel.h"
#include "backend/patterns/planner.h"

namespace fovea::apps::bench {

double Row::peak_share(const Peaks& peaks) const {
    const double peak = dtype != "f32" && peaks.matrix > 0 ? peaks.matrix : peaks.fma;
    return ms > 0 && peak > 0 ? flops / (ms * 1e-3) / peak : 0;
}

double Row::bandwidth_share(const Peaks& peaks) const {
    return ms > 0 && peaks.bandwidth > 0 ? bytes / (ms * 1e-3) / peaks.bandwidth : 0;
}

std::vector<AttentionPath> Run::attention_paths(ScorePrecision scores) const {
    std::vector<AttentionPath> found;
    for (const std::string& name : paths) {
        if (name != "all") {
            found.push_back(choose_path(device.info(), dtype, parse_path(name), scores));
            continue;
        }
        for (const auto& [path, support] : fovea::attention_paths(device.info(), dtype, scores)) {
            if (support.ok)
                found.push_back(path);
            else
                skip(fmt::format("path {}", name_of(path)), support.why);
        }
    }
    return found;
}

double Run::dense_ms(const std::string& op, const std::string& shape,
                     const std::string& path) const {
    for (const Row& row : rows)
        if (row.op == op && row.pattern == "dense" && row.shape == shape && row.path == path)
            return row.ms;
    return 0;
}

void fill_density(Row& row, const Run& run, const AttentionShape& shape, const Pattern& pattern,
                  AttentionPath path, ScorePrecision scores) {
    const uint32_t tokens = shape.tokens();
    const AttentionProblem problem{.batch = shape.batch,
                                   .heads = shape.heads,
                                   .kv_heads = shape.heads,
                                   .q_len = tokens,
                                   .kv_len = tokens,
                                   .extra_len = 0,
                                   .head_dim = shape.head_dim,
                                   .v_dim = shape.head_dim,
                                   .dtype = run.dtype,
                                   .flags = 0,
                                   .scores = scores};
    row.tile = choose_attention(run.device.info(), problem, pattern.granularity(), path).block();
    const Plan lists = plan(pattern, row.tile, tokens, tokens);
    row.blocks = row.pairs = 0;
    const size_t heads = std::max<size_t>(1, lists.list_of_head.size());
    for (size_t h = 0; h < heads; ++h) {
        const BlockList& list = lists.lists[lists.list_of_head.empty() ? 0 : lists.list_of_head[h]];
        row.blocks += list.visited_share() / static_cast<double>(heads);
        row.pairs += list.kept_share() / static_cast<double>(heads);
    }
}

void Run::add(Row row) {
    if (rows.empty())
        fmt::print("{:<9} {:<34} {:<19} {:<4} {:<8} {:>6} {:>6} {:>10} {:>7} {:>8} {:>6} {:>6}\n",
                   "op", "pattern", "shape", "type", "path", "blocks", "pairs", "ms", "spread",
                   "TFLOP/s", "peak", "memory");
    fmt::print("{:<9} {:<34} {:<19} {:<4} {:<8} {:6.4f} {:6.4f} ", row.op, row.pattern, row.shape,
               row.dtype, row.path, row.blocks, row.pairs);
    if (row.ok)
        fmt::print("{:10.4f} {:6.1f}% {:8.3f} {:5.1f}% {:5.1f}%  error {:.1e}, first {:.2f} s",
                   row.ms, 100 * row.spread_ms / row.ms, row.tflops(), 100 * row.peak_share(peaks),
                   100 * row.bandwidth_share(peaks), row.error, row.first_seconds);
    else
        fmt::print("     WRONG: relative L2 error {:.2e}", row.error);
    if (row.ok && row.core_ms > 0)
        fmt::print(", {:.1f} GFLOP/s a core", row.flops / row.core_ms / 1e6);
    if (row.ok && row.attention_ms > 0)
        fmt::print(", attention {:.4f} ms ({:.1f}%), {:.3f} GiB", row.attention_ms,
                   100 * row.attention_ms / row.ms,
                   static_cast<double>(row.memory) / (uint64_t{1} << 30));
    if (row.ok && row.dense_ms > 0)
        fmt::print(", {:.2f} times as fast as dense", row.dense_ms / row.ms);
    fmt::print("\n");
    std::fflush(stdout);
    rows.push_back(std::move(row));
}

void Run::skip(const std::string& what, const std::string& why) const {
    fmt::print("skipped: {}: {}\n", what, why);
    std::fflush(stdout);
}

Json to_json(const Run& run) {
    const vk::DeviceInfo& device = run.device.info();
    Json rows = Json::array();
    for (const Row& row : run.rows) {
        Json entry = {{"device", device.name},
                      {"op", row.op},
                      {"set", row.set},
                      {"pattern", row.pattern},
                      {"shape", row.shape},
                      {"grid", row.grid},
                      {"dtype", row.dtype},
                      {"path", row.path},
                      {"density", {{"blocks", row.blocks}, {"pairs", row.pairs}}},
                      {"ok", row.ok},
                      {"error", row.error},
                      {"first_seconds", row.first_seconds}};
        if (row.tile.q > 0) entry["tile"] = {row.tile.q, row.tile.k};
        if (!row.model.is_null()) entry["model"] = row.model;
        if (row.ok) {
            entry["ms"] = row.ms;
            entry["spread_ms"] = row.spread_ms;
            if (row.core_ms > 0) entry["core_tflops"] = row.flops / row.core_ms / 1e9;
            entry["runs"] = row.runs;
            entry["input_sets"] = row.input_sets;
            entry["tflops"] = row.tflops();
            entry["peak_share"] = row.peak_share(run.peaks);
            entry["bandwidth_share"] = row.bandwidth_share(run.peaks);
            if (row.attention_ms > 0) {
                entry["attention_ms"] = row.attention_ms;
                entry["attention_share"] = row.attention_ms / row.ms;
                entry["memory_bytes"] = row.memory;
            }
            if (row.dense_ms > 0) entry["dense_ms"] = row.dense_ms;
        }
        rows.push_back(std::move(entry));
    }
    return {{"engine", fmt::format("fovea {}", kVersion)},
            {"device", device.name},
            {"driver", device.driver},
            {"peaks",
             {{"matrix_tflops", run.peaks.matrix / 1e12},
              {"matrix_why", run.peaks.matrix_why},
              {"fma_tflops", run.peaks.fma / 1e12},
              {"bandwidth_gb_s", run.peaks.bandwidth / 1e9}}},
            {"rows", rows},
            {"masks", run.masks}};
}

void save_text(const std::string& path, const std::string& text) {
    const std::string beside = path + ".part";
    {
        std::ofstream file(beside, std::ios::binary);
        file << text;
        require(file.good(), "[bench] {} cannot be written", path);
    }
    std::error_code error;
    std::filesystem::rename(beside, path, error);
    require(!error, "[bench] {} cannot be written: {}", path, error.message());
}

}  // namespace fovea::apps::bench
