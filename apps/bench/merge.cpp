#include "apps/bench/merge.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <tuple>

#include "backend/error.h"

namespace fovea::apps::bench {
namespace {

using Key = std::tuple<std::string, std::string, std::string, std::string>;

Key key_of(const Json& row) {
    return {row.at("op"), row.at("pattern"), row.at("shape"), row.at("dtype")};
}

bool is_engine(const Json& document) {
    return document.at("engine").get<std::string>().starts_with("fovea");
}

/// Rows that may count: right, and with a time.
bool has_time(const Json& row) {
    return row.value("ok", true) && row.contains("ms");
}

void require_row(const std::string& path, size_t number, const Json& row) {
    const auto wrong = [&](const char* key, const char* expected) {
        fail("[bench] {}: row {}: \"{}\" is missing or no {}, found {}", path, number, key,
             expected, row.contains(key) ? row.at(key).dump().substr(0, 40) : "nothing");
    };
    require(row.is_object(), "[bench] {}: row {} is no object", path, number);
    for (const char* key : {"op", "pattern", "shape", "dtype", "path"})
        if (!row.contains(key) || !row.at(key).is_string()) wrong(key, "text");
    if (row.contains("ok") && !row.at("ok").is_boolean()) wrong("ok", "boolean");
    if (!row.value("ok", true)) return;
    if (!row.contains("ms") || !row.at("ms").is_number() || !(row.at("ms").get<double>() > 0))
        wrong("ms", "number above 0");
    for (const char* key : {"tflops", "peak_share", "bandwidth_share", "attention_ms",
                            "attention_share", "memory_bytes", "dense_ms", "error"})
        if (row.contains(key) && !row.at(key).is_number()) wrong(key, "number");
    if (row.contains("density"))
        for (const char* key : {"blocks", "pairs"})
            if (!row.at("density").is_object() || !row.at("density").contains(key) ||
                !row.at("density").at(key).is_number())
                wrong("density", "pair of numbers \"blocks\" and \"pairs\"");
}

/// Peers' times of one case, the fastest of a path, and their ratios to the engine's.
Json against(const std::map<std::string, double>& peers, double engine_ms) {
    Json result = Json::object();
    for (const auto& [path, ms] : peers) {
        result[path] = {{"ms", ms}};
        if (engine_ms > 0) result[path]["ratio"] = ms / engine_ms;
    }
    return result;
}

std::string cell(const Json& entry) {
    const std::string time = fmt::format("{:.4g}", entry.at("ms").get<double>());
    return entry.contains("ratio")
               ? fmt::format("{} ({:.2f}×)", time, entry.at("ratio").get<double>())
               : time;
}

std::string list_of(const Json& peers) {
    std::vector<std::string> parts;
    for (const auto& [path, entry] : peers.items())
        parts.push_back(fmt::format("{} {}", path, cell(entry)));
    return fmt::format("{}", fmt::join(parts, ", "));
}

std::string table_of(const Json& rows, const std::string& op) {
    std::set<std::string> peers;
    bool sparse = false;
    for (const Json& row : rows) {
        if (row.at("op") != op) continue;
        for (const auto& [path, entry] : row.at("peers").items()) peers.insert(path);
        sparse = sparse || row.at("pattern") != "dense";
    }
    const bool model = op == "model", patterns = op == "attention" || model;
    std::string text = patterns
                           ? "| shape | pattern | blocks | pairs | path | ms | TFLOP/s | of peak |"
                           : "| shape | type | path | ms | TFLOP/s | of peak |";
    std::string rule = patterns ? "|---|---|---|---|---|---|---|---|" : "|---|---|---|---|---|---|";
    if (model) {
        text += " attention, ms | of the time | GiB |";
        rule += "---|---|---|";
    }
    if (sparse) {
        text += " own dense, ms |";
        rule += "---|";
    }
    for (const std::string& peer : peers) {
        text += fmt::format(" {}, ms |", peer);
        rule += "---|";
    }
    const bool dense_peers = sparse && std::any_of(rows.begin(), rows.end(), [](const Json& row) {
                                 return !row.at("dense_peers").empty();
                             });
    if (dense_peers) {
        text += " dense peers, ms |";
        rule += "---|";
    }
    text += fmt::format("\n{}\n", rule);
    const auto number = [](const Json& row, const char* key, const char* otherwise, auto format) {
        return row.contains(key) ? format(row.at(key).template get<double>())
                                 : std::string(otherwise);
    };
    const auto digits = [](double value) { return fmt::format("{:.4g}", value); };
    const auto percent = [](double value) { return fmt::format("{:.0f} %", 100 * value); };
    for (const Json& row : rows) {
        if (row.at("op") != op) continue;
        const auto string = [&](const char* key) { return row.at(key).get<std::string>(); };
        text += fmt::format("| {} | ", string("shape"));
        if (patterns) {
            const Json density = row.value("density", Json::object());
            text += fmt::format("{} {} | {} | {} | ", string("pattern"),
                                string("dtype") == "f16" ? "" : string("dtype"),
                                number(density, "blocks", "", digits),
                                number(density, "pairs", "", digits));
        } else {
            text += fmt::format("{} | ", string("dtype"));
        }
        text += fmt::format("{} | {} | {} | {} |", row.value("path", ""),
                            row.value("wrong", false) ? "WRONG" : number(row, "ms", "–", digits),
                            number(row, "tflops", "–", digits),
                            number(row, "peak_share", "–", percent));
        if (model)
            text += fmt::format(" {} | {} | {} |", number(row, "attention_ms", "–", digits),
                                number(row, "attention_share", "–", percent),
                                number(row, "memory_bytes", "–", [](double bytes) {
                                    return fmt::format("{:.2f}", bytes / (1 << 30));
                                }));
        if (sparse)
            text += fmt::format(" {} |", number(row, "dense_ms", "–", [&](double ms) {
                                    return cell({{"ms", ms}, {"ratio", ms / row.value("ms", ms)}});
                                }));
        for (const std::string& peer : peers)
            text += fmt::format(
                " {} |", row.at("peers").contains(peer) ? cell(row.at("peers").at(peer)) : "–");
        if (dense_peers) text += fmt::format(" {} |", list_of(row.at("dense_peers")));
        text += "\n";
    }
    return text;
}

}  // namespace

Json read_results(const std::string& path) {
    std::ifstream file(path);
    require(file.good(), "[bench] {} cannot be read", path);
    Json document = Json::parse(file, nullptr, false);
    require(document.is_object(),
            "[bench] {} is no JSON object; expected the output of fovea "
            "bench --json or of apps/bench/peers/torch_peers.py",
            path);
    for (const char* key : {"engine", "device"})
        require(document.contains(key) && document.at(key).is_string(),
                "[bench] {}: \"{}\" is missing or no text", path, key);
    require(document.contains("rows") && document.at("rows").is_array(),
            "[bench] {}: \"rows\" is missing or no list", path);
    size_t number = 0;
    for (const Json& row : document.at("rows")) require_row(path, number++, row);
    return document;
}

Json merge_results(const std::vector<Json>& documents) {
    std::vector<Key> order;
    std::map<Key, Json> engine;
    std::map<Key, std::map<std::string, double>> peers;
    std::set<Key> wrong;
    Json sources = Json::array();
    for (const Json& document : documents) {
        const bool own = is_engine(document);
        sources.push_back({{"engine", document.at("engine")}, {"device", document.at("device")}});
        for (const char* key : {"driver", "peaks", "startup"})
            if (document.contains(key)) sources.back()[key] = document.at(key);
        for (const Json& row : document.at("rows")) {
            const Key key = key_of(row);
            if (std::find(order.begin(), order.end(), key) == order.end()) order.push_back(key);
            if (!has_time(row)) {
                if (own) wrong.insert(key);
                continue;
            }
            const double ms = row.at("ms");
            if (own) {
                const auto found = engine.find(key);
                if (found == engine.end() || ms < found->second.at("ms").get<double>())
                    engine[key] = row;
            } else {
                auto& times = peers[key];
                const std::string path = row.at("path");
                if (!times.contains(path) || ms < times.at(path)) times[path] = ms;
            }
        }
    }
    Json rows = Json::array();
    for (const Key& key : order) {
        const auto& [op, pattern, shape, dtype] = key;
        Json row = {{"op", op}, {"pattern", pattern}, {"shape", shape}, {"dtype", dtype}};
        if (engine.contains(key))
            for (const char* name : {"path", "set", "density", "ms", "spread_ms", "tflops",
                                     "peak_share", "bandwidth_share", "attention_ms",
                                     "attention_share", "memory_bytes", "dense_ms", "error"})
                if (engine.at(key).contains(name)) row[name] = engine.at(key).at(name);
        if (!engine.contains(key) && wrong.contains(key)) row["wrong"] = true;
        const double ms = row.value("ms", 0.0);
        row["peers"] = against(peers[key], ms);
        row["dense_peers"] =
            pattern == "dense" ? Json::object() : against(peers[{op, "dense", shape, dtype}], ms);
        rows.push_back(std::move(row));
    }
    return {{"sources", sources}, {"rows", rows}};
}

std::string markdown_of(const Json& merged) {
    std::string text;
    for (const Json& source : merged.at("sources")) {
        text += fmt::format("{} on {}", source.at("engine").get<std::string>(),
                            source.at("device").get<std::string>());
        if (source.contains("driver"))
            text += fmt::format(", {}", source.at("driver").get<std::string>());
        if (source.contains("peaks")) {
            const Json& peaks = source.at("peaks");
            text += fmt::format(
                "; peaks measured in this run: {:.4g} TFLOP/s of fp16 matrices, {:.4g} of fp32 "
                "fused multiply-adds, {:.4g} GB/s",
                peaks.value("matrix_tflops", 0.0), peaks.value("fma_tflops", 0.0),
                peaks.value("bandwidth_gb_s", 0.0));
        }
        text += ".\n";
        if (source.contains("startup")) {
            const Json& startup = source.at("startup");
            std::vector<double> warm;
            for (const Json& one : startup.at("warm"))
                warm.push_back(one.at("first_step_seconds").get<double>());
            text += fmt::format(
                "`fovea generate` at {} to the end of its first step: {:.2f} s cold, {:.2f} s "
                "warm.\n",
                startup.at("size").get<std::string>(),
                startup.at("cold").at("first_step_seconds").get<double>(), fmt::join(warm, ", "));
        }
    }
    text += "\nMedians of device timestamps. In brackets: that time over the engine's.\n";
    for (const char* op : {"attention", "gemm", "conv", "model"}) {
        const Json& rows = merged.at("rows");
        if (std::none_of(rows.begin(), rows.end(),
                         [&](const Json& row) { return row.at("op") == op; }))
            continue;
        text += fmt::format("\n## {}\n\n{}", op, table_of(rows, op));
    }
    return text;
}

}  // namespace fovea::apps::bench
