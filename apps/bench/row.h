#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/bench/shapes.h"
#include "backend/ops/attention.h"
#include "backend/ops/peak.h"

/// What a benchmark measures and says of it: shared by the ops' files in this folder.
namespace fovea::apps::bench {

using Json = nlohmann::json;

/// One measured case. Shares are of what the same device reached in the same run.
struct Row {
    std::string op, set, pattern = "dense", shape;
    std::string dtype;  ///< of tensors; int8: f16 with int8 scores
    std::string path;
    std::vector<uint32_t> grid;    ///< tokens an axis, where the pattern has a grid
    TileShape tile{0, 0};          ///< the kernel's own; blocks are counted in it
    double blocks = 1;             ///< share of blocks visited
    double pairs = 1;              ///< share of (query, key) pairs kept
    double flops = 0;              ///< of the blocks visited, or of the product
    double bytes = 0;              ///< every input and output once
    double ms = 0, spread_ms = 0;  ///< median; interquartile range
    double core_ms = 0;  ///< processor time a run, on CPU devices: holds on a busy machine
    int runs = 0, input_sets = 1;
    double attention_ms = 0;  ///< of ms, in attention: of models
    uint64_t memory = 0;      ///< bytes of the device while it runs, one set of inputs: of models
    Json model;               ///< sizes of the block, for peers; null for single ops
    double dense_ms = 0;      ///< the same shape and path without a pattern; 0: not measured
    double first_seconds = 0;
    double error = 0;  ///< relative L2 of sampled outputs
    bool ok = true;    ///< a wrong kernel has no time

    double tflops() const { return ms > 0 ? flops / ms / 1e9 : 0; }
    double peak_share(const Peaks& peaks) const;
    double bandwidth_share(const Peaks& peaks) const;
};

/// What the cases of one run have in common.
struct Run {
    vk::Device& device;
    Peaks peaks;
    DType dtype;
    ScorePrecision scores;           ///< of attention
    double seconds;                  ///< of repeats a row
    std::vector<std::string> paths;  ///< names, "automatic" or "all"
    std::vector<std::string> tiles;  ///< of products on matrix units, or "all"; none: the chosen
    bool profile;                    ///< prints the time by op of each row's last run
    std::vector<Row> rows;
    Json masks = Json::object();  ///< block masks by pattern and shape, for peers

    bool cpu() const { return device.info().type == vk::DeviceType::cpu; }
    /// Of `paths`; what this device lacks of "all" is skipped with its reason.
    std::vector<AttentionPath> attention_paths(
        ScorePrecision scores = ScorePrecision::stored) const;
    /// Of the dense row measured before; 0 if there is none.
    double dense_ms(const std::string& op, const std::string& shape, const std::string& path) const;
    void add(Row row);  ///< prints it
    void skip(const std::string& what, const std::string& why) const;
};

/// tile, blocks and pairs of a pattern over the shape's tokens.
void fill_density(Row& row, const Run& run, const AttentionShape& shape, const Pattern& pattern,
                  AttentionPath path, ScorePrecision scores = ScorePrecision::stored);

Json to_json(const Run& run);

/// Written beside and renamed.
void save_text(const std::string& path, const std::string& text);

}  // namespace fovea::apps::bench
