/// Draws every prompt of a file with the default settings and asks the evaluator whether each
/// picture is what was asked: the figures of docs/model.md, by the engine itself. The files are
/// eval_single.jsonl and eval_pairs.jsonl of training/prepare_data.py.
/// Usage: fovea_quality PROMPTS.jsonl FOLDER [options]; prompt i gets seed SEED + i.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backend/error.h"
#include "pipelines/score.h"
#include "pipelines/text_to_image.h"

namespace fovea {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct Options {
    std::string prompts, folder, model, device, precision = "auto", sampler = "dpmpp2m";
    uint64_t seed = 2024;
    int steps = 24, part = 0, parts = 1;
    float cfg = 3;
};

std::string text_or_empty(const Json& entry, const char* key) {
    return entry.at(key).is_string() ? entry.at(key).get<std::string>() : std::string();
}

/// From what the file says, not from the prompt: how prompts are read is not measured here.
Wanted wanted_of(const Concepts& concepts, const Json& entry) {
    Wanted wanted{.objects = {},
                  .color = text_or_empty(entry, "color"),
                  .style = text_or_empty(entry, "style"),
                  .relation = text_or_empty(entry, "relation")};
    for (const std::string name : entry.at("objects")) {
        const auto found = std::find(concepts.objects.begin(), concepts.objects.end(), name);
        require(found != concepts.objects.end(), "[quality] the model does not know {}", name);
        wanted.objects.push_back(static_cast<size_t>(found - concepts.objects.begin()));
    }
    return wanted;
}

/// Right and asked, by kind of expectation.
struct Tally {
    std::map<std::string, std::pair<int, int>> kinds;

    void add(const char* kind, std::optional<bool> met) {
        if (!met) return;
        kinds[kind].first += *met;
        kinds[kind].second += 1;
    }
    void print(double seconds) const {
        for (const auto& [kind, count] : kinds)
            fmt::print("{:<24} {:4} of {:4}  {:5.1f} %\n", kind, count.first, count.second,
                       100.0 * count.first / count.second);
        fmt::print("{:.1f} s\n", seconds);
    }
};

Json met_json(std::optional<bool> met) {
    return met ? Json(*met) : Json();
}

void run(const Options& options) {
    std::ifstream file(options.prompts);
    require(file.good(), "[quality] {} cannot be read", options.prompts);
    std::vector<Json> entries;
    for (std::string line; std::getline(file, line);) entries.push_back(Json::parse(line));

    vk::Device device(options.device);
    vk::Stream stream(device);
    const fs::path folder = find_model(options.model);
    const DType dtype = choose_precision(device.info(), options.precision);
    const Model model = Model::load(stream, folder, dtype);
    const Scorer scorer(stream, folder, dtype);
    fs::create_directories(options.folder);
    std::ofstream scores(fs::path(options.folder) / fmt::format("scores-{}.jsonl", options.part));

    Tally tally;
    const auto begin = std::chrono::steady_clock::now();
    for (size_t i = 0; i < entries.size(); ++i) {
        if (static_cast<int>(i) % options.parts != options.part) continue;
        TextToImage::Request request;
        request.prompt = entries[i].at("prompt");
        request.seeds = {options.seed + i};
        request.steps = options.steps;
        request.cfg = options.cfg;
        request.sampler = sampler_by_name(options.sampler);
        const auto images = TextToImage::run(stream, model, request);
        save_png(fs::path(options.folder) / fmt::format("{:03}.png", i), images[0]);
        const Seen seen = scorer.look(stream, {as_saved(images[0])})[0];
        const Wanted wanted = wanted_of(scorer.concepts(), entries[i]);
        const Verdict verdict = judge(wanted, seen);

        tally.add("objects", verdict.objects);
        tally.add("background", verdict.color);
        tally.add("style", verdict.style);
        tally.add("relation", verdict.relation);
        if (verdict.relation)
            tally.add("relation of both seen",
                      verdict.objects.value_or(false) ? verdict.relation : std::optional<bool>());
        tally.add("all but style", verdict.objects.value_or(true) && verdict.color.value_or(true) &&
                                       verdict.relation.value_or(true));
        Json line{{"index", i},
                  {"prompt", request.prompt},
                  {"objects", met_json(verdict.objects)},
                  {"background", met_json(verdict.color)},
                  {"style", met_json(verdict.style)},
                  {"relation", met_json(verdict.relation)},
                  {"style_asked", wanted.style},
                  {"seen", Json::array()}};
        float least = 256;  // mass of the object that is hardest to find
        for (const auto& object : seen.objects)
            if (std::count(wanted.objects.begin(), wanted.objects.end(), object.object) > 0)
                least = std::min(least, object.mass);
        line["mass"] = least;
        for (size_t k = 0; k < wanted.objects.size() + 1; ++k)
            line["seen"].push_back({{"name", scorer.concepts().objects[seen.objects[k].object]},
                                    {"mass", seen.objects[k].mass},
                                    {"x", seen.objects[k].x},
                                    {"y", seen.objects[k].y}});
        scores << line.dump() << "\n";
    }
    fmt::print("{}, {}, model {}\n", device.info().name,
               model.dtype == DType::f16 ? "fp16" : "fp32", model.hash);
    tally.print(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
}

}  // namespace
}  // namespace fovea

int main(int argc, char** argv) {
    fovea::Options options;
    CLI::App app("Pictures of a prompt file, and how many are what was asked");
    app.add_option("prompts", options.prompts)->required();
    app.add_option("folder", options.folder, "Where pictures and scores go")->required();
    app.add_option("--model", options.model);
    app.add_option("--device", options.device);
    app.add_option("--precision", options.precision);
    app.add_option("--sampler", options.sampler);
    app.add_option("--seed", options.seed);
    app.add_option("--steps", options.steps);
    app.add_option("--cfg", options.cfg);
    app.add_option("--part", options.part, "Only prompts i with i mod PARTS = PART");
    app.add_option("--parts", options.parts);
    CLI11_PARSE(app, argc, argv);
    try {
        fovea::run(options);
    } catch (const std::exception& error) {
        fmt::print(stderr, "fovea_quality: error: {}\n", error.what());
        return 1;
    }
}
