#include "pipelines/score.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "apps/app.h"
#include "backend/error.h"
#include "backend/log.h"
#include "pipelines/model.h"

namespace fovea::apps {
namespace {

struct ScoreOptions {
    std::vector<std::string> arguments;
    std::string device, model, precision = "auto";
    int top = 3;
    bool json = false;
};

std::string yes_no(std::optional<bool> met) {
    return !met ? "-" : *met ? "yes" : "no";
}

nlohmann::json optional_json(std::optional<bool> met) {
    return met ? nlohmann::json(*met) : nlohmann::json();
}

void print_text(const std::string& file, const Concepts& concepts, const Seen& seen,
                const Verdict* verdict, int top) {
    fmt::print("{}\n", file);
    for (int i = 0; i < top; ++i) {
        const auto& object = seen.objects[static_cast<size_t>(i)];
        fmt::print("   {:<28} {:>5.1f} %  of the picture {:>4.1f} %  at {:.2f}, {:.2f}\n",
                   concepts.objects[object.object], 100 * object.confidence,
                   100 * object.mass / 256, object.x, object.y);
    }
    fmt::print("   background {} ({:.0f} %), style {} ({:.0f} %)\n", seen.color,
               100 * seen.color_confidence, seen.style, 100 * seen.style_confidence);
    if (verdict)
        fmt::print("   as asked: objects {}, background {}, style {}, relation {}\n",
                   yes_no(verdict->objects), yes_no(verdict->color), yes_no(verdict->style),
                   yes_no(verdict->relation));
}

nlohmann::json to_json(const std::string& file, const Concepts& concepts, const Seen& seen,
                       const Verdict* verdict, int top) {
    auto objects = nlohmann::json::array();
    for (int i = 0; i < top; ++i) {
        const auto& object = seen.objects[static_cast<size_t>(i)];
        objects.push_back({{"name", concepts.objects[object.object]},
                           {"confidence", object.confidence},
                           {"mass", object.mass},
                           {"x", object.x},
                           {"y", object.y}});
    }
    nlohmann::json json{{"file", file},
                        {"objects", objects},
                        {"background", seen.color},
                        {"background_confidence", seen.color_confidence},
                        {"style", seen.style},
                        {"style_confidence", seen.style_confidence}};
    if (verdict)
        json["as_asked"] = {{"objects", optional_json(verdict->objects)},
                            {"background", optional_json(verdict->color)},
                            {"style", optional_json(verdict->style)},
                            {"relation", optional_json(verdict->relation)}};
    return json;
}

bool is_file(const std::string& argument) {
    std::error_code error;
    return std::filesystem::is_regular_file(argument, error);
}

void run(const ScoreOptions& options) {
    // All arguments are pictures, but the last may be a prompt.
    auto files = options.arguments;
    std::string prompt;
    if (!is_file(files.back())) {
        prompt = files.back();
        files.pop_back();
    }
    require(!files.empty(), "[score] no picture: \"{}\" is not a file", prompt);
    for (const auto& file : files)
        require(is_file(file), "[score] {} is not a file; only the last argument may be a prompt",
                file);

    vk::Device device(options.device);
    vk::Stream stream(device);
    const Scorer scorer(stream, find_model(options.model),
                        choose_precision(device.info(), options.precision));
    const auto& concepts = scorer.concepts();
    const Wanted wanted = read_prompt(concepts, prompt);
    if (!prompt.empty() && wanted.objects.empty())
        log::say("fovea: warning: the prompt names none of the {} objects the evaluator knows\n",
                 concepts.objects.size());
    const int top = std::max(options.top, static_cast<int>(wanted.objects.size()));

    auto results = nlohmann::json::array();
    constexpr size_t kBatch = 16;
    for (size_t begin = 0; begin < files.size(); begin += kBatch) {
        std::vector<Image> pictures;
        for (size_t i = begin; i < std::min(begin + kBatch, files.size()); ++i)
            pictures.push_back(load_image(files[i]));
        const auto seen = scorer.look(stream, pictures);
        for (size_t i = 0; i < seen.size(); ++i) {
            const Verdict verdict = judge(wanted, seen[i]);
            const Verdict* asked = prompt.empty() ? nullptr : &verdict;
            if (options.json)
                results.push_back(to_json(files[begin + i], concepts, seen[i], asked, top));
            else
                print_text(files[begin + i], concepts, seen[i], asked, top);
        }
    }
    if (options.json) fmt::print("{}\n", results.dump(2));
}

}  // namespace

void add_score(CLI::App& app) {
    auto* command = app.add_subcommand("score",
                                       "Say what pictures show and how sure the evaluator is; with "
                                       "a prompt, whether it is what was asked");
    auto options = std::make_shared<ScoreOptions>();
    command->add_option("arguments", options->arguments, "PICTURE… [\"PROMPT\"]")->required();
    command->add_option("--top", options->top, "Objects to list")
        ->check(CLI::Range(1, 100))
        ->capture_default_str();
    command->add_option("--device", options->device,
                        "Device index or part of its name (see fovea info)");
    command->add_option("--model", options->model, "Model folder");
    command->add_option("--precision", options->precision, "auto, fp16 or fp32")
        ->capture_default_str();
    command->add_flag("--json", options->json, "Print JSON");
    command->callback([options] { run(*options); });
}

}  // namespace fovea::apps
