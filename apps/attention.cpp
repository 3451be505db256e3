#include "backend/ops/attention.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/app.h"
#include "backend/error.h"
#include "backend/log.h"
#include "pipelines/attention_case.h"
#include "pipelines/text_to_image.h"

namespace fovea::apps {
namespace {

namespace fs = std::filesystem;

struct AttentionOptions {
    std::vector<std::string> files;
    std::string path = "automatic", precision, scores = "stored", output, device;
    bool json = false;
};

struct Plan {
    AttentionPath path;
    DType dtype;
    ScorePrecision scores;
};

/// Matrix paths multiply fp16 only, so a path that is forced decides what is not said, and so do
/// int8 scores.
Plan plan(const AttentionOptions& options, const vk::DeviceInfo& device) {
    AttentionPath path = parse_path(options.path);
    const char* forced = std::getenv("FOVEA_PATH");
    if (path == AttentionPath::automatic && forced && *forced) path = parse_path(forced);
    require(options.precision.empty() || options.precision == "fp32" || options.precision == "fp16",
            "[attention] --precision is fp32 or fp16, found \"{}\"", options.precision);
    const ScorePrecision scores = parse_scores(options.scores);
    const bool matrices =
        path == AttentionPath::khr || path == AttentionPath::nv2 || scores == ScorePrecision::int8;
    const bool half = options.precision.empty() ? matrices : options.precision == "fp16";
    const DType dtype = half ? DType::f16 : DType::f32;
    return {choose_path(device, dtype, path, scores), dtype, scores};
}

/// Where each result goes: OUT itself, or OUT/NAME for several cases and where OUT is a folder.
std::vector<fs::path> outputs(const AttentionOptions& options) {
    if (options.output.empty()) return {};
    const fs::path out = options.output;
    std::error_code error;
    const bool folder =
        options.files.size() > 1 || options.output.ends_with('/') || fs::is_directory(out, error);
    if (!folder) {
        require_folder_of("attention", "-o", options.output);
        return {out};
    }
    fs::create_directories(out, error);
    require(fs::is_directory(out, error), "[attention] -o {}: cannot make this folder",
            options.output);
    std::vector<fs::path> result;
    for (const auto& file : options.files) result.push_back(out / fs::path(file).filename());
    require(std::set(result.begin(), result.end()).size() == result.size(),
            "[attention] -o {}: two cases have one name", options.output);
    return result;
}

void save(const fs::path& path, const AttentionCase& c, const AttentionCaseResult& result) {
    const NamedTensor tensors[] = {
        {.name = "o", .shape = result.o.shape, .values = result.o.values},
        {.name = "lse", .shape = result.lse.shape, .values = result.lse.values}};
    write_safetensors(path, tensors, {{"spec", c.spec}});
}

/// JSON has no infinity: the largest float stands for it.
nlohmann::json to_json(std::optional<float> error) {
    if (!error) return {};
    return std::min(*error, std::numeric_limits<float>::max());
}

const char* precision_of(const Plan& plan) {
    if (plan.scores == ScorePrecision::int8) return "int8";
    return plan.dtype == DType::f16 ? "fp16" : "fp32";
}

std::string text(std::optional<float> error) {
    return error ? fmt::format("{:.1e}", *error) : "not in the file";
}

void print_line(const AttentionOptions& options, const std::string& file, const Plan& plan,
                const AttentionCase& c, const AttentionCaseResult& result) {
    std::string why;
    if (c.wrong_blocks > 0)
        why = fmt::format("block mask: {} blocks differ from the file's", c.wrong_blocks);
    if (options.json) {
        nlohmann::json line{{"case", file},
                            {"path", name_of(plan.path)},
                            {"precision", precision_of(plan)},
                            {"max_err_o", to_json(result.max_err_o)},
                            {"max_err_lse", to_json(result.max_err_lse)},
                            {"ok", result.ok}};
        if (!why.empty()) line["error"] = why;
        fmt::print("{}\n", line.dump());
    } else {
        const AttentionTolerance allowed = attention_tolerance(plan.dtype, plan.scores);
        fmt::print("{}: {} {}, {} {}, o {} (at most {:.0e}), lse {} (at most {:.0e}): {}{}{}\n",
                   file, c.pattern_type, c.shape_text(), name_of(plan.path), precision_of(plan),
                   text(result.max_err_o), allowed.o, text(result.max_err_lse), allowed.lse,
                   result.ok ? "ok" : "FAILED", why.empty() ? "" : ", ", why);
    }
    std::fflush(stdout);  // lines appear as cases end
}

/// "[op] what" → "[op] file: what", one line whatever the file put into it.
std::string with_file(std::string message, const std::string& file) {
    for (char& letter : message)
        if (static_cast<unsigned char>(letter) < ' ') letter = ' ';
    if (message.find(file) != std::string::npos) return message;
    const size_t at = message.starts_with('[') ? message.find("] ") : std::string::npos;
    if (at == std::string::npos) return fmt::format("[attention] {}: {}", file, message);
    return message.insert(at + 2, file + ": ");
}

void run(const AttentionOptions& options) {
    const auto destinations = outputs(options);
    vk::Device device(options.device);
    const Plan chosen = plan(options, device.info());
    vk::Stream stream(device);
    size_t failed = 0;
    for (size_t i = 0; i < options.files.size(); ++i) {
        const std::string& file = options.files[i];
        if (interrupted()) throw Cancelled();
        try {
            const AttentionCase c = read_attention_case(Weights::open(file));
            const auto result =
                run_attention_case(stream, c, chosen.dtype, chosen.path, chosen.scores);
            if (!destinations.empty()) save(destinations[i], c, result);
            print_line(options, file, chosen, c, result);
            failed += !result.ok;
        } catch (const std::exception& error) {
            const std::string message = with_file(error.what(), file);
            ++failed;
            if (options.json)
                fmt::print("{}\n", nlohmann::json{{"case", file},
                                                  {"path", name_of(chosen.path)},
                                                  {"precision", precision_of(chosen)},
                                                  {"max_err_o", nullptr},
                                                  {"max_err_lse", nullptr},
                                                  {"ok", false},
                                                  {"error", message}}
                                       .dump());
            if (options.files.size() == 1) throw Error(message);
            log::say("fovea: error: {}\n", message);
        }
    }
    require(failed == 0, "[attention] {} of {} cases failed", failed, options.files.size());
}

}  // namespace

void add_attention(CLI::App& app) {
    auto* command = app.add_subcommand(
        "attention", "Run attention cases and compare them with the results they expect");
    auto options = std::make_shared<AttentionOptions>();
    command->add_option("cases", options->files, "CASE.safetensors…")->required();
    command->add_option("--path", options->path, "automatic, scalar, khr or nv2")
        ->capture_default_str();
    command->add_option("--precision", options->precision,
                        "fp32 or fp16: storage type; fp32 unless a matrix path is forced");
    command->add_option("--scores", options->scores, "stored, or int8 of fp16 tensors")
        ->capture_default_str();
    command->add_option("-o,--output", options->output,
                        "Write o and lse to this file; of several cases, into this folder");
    command->add_option("--device", options->device,
                        "Device index or part of its name (see fovea info)");
    command->add_flag("--json", options->json, "Print one JSON object a case");
    command->footer(
        "One line a case; the exit code is 0 only if every case meets its tolerance (o: 1e-4 "
        "fp32,\n"
        "1e-2 fp16, 1e-1 with int8 scores; lse: 1e-3, 5e-3 and 5e-2). Files without o and lse are "
        "run too.\n\n"
        "Examples:\n"
        "  fovea attention cases/*.safetensors\n"
        "  fovea attention case.safetensors --path scalar --precision fp16 -o result.safetensors");
    command->callback([options] { run(*options); });
}

}  // namespace fovea::apps
