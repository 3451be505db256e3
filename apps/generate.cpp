#include <fmt/format.h>
#include <fmt/ranges.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/app.h"
#include "backend/error.h"
#include "backend/log.h"
#include "backend/vk/profile.h"
#include "pipelines/text_to_image.h"

namespace fovea::apps {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kChunk = "fovea";  // PNG text chunk with the settings as JSON

struct Options {
    std::string prompt, output = "fovea.png", size = "256x256", sampler = "dpmpp2m", pattern, from;
    std::string device, precision = "auto", model;
    uint64_t seed = 0;
    int steps = 24, count = 1, preview = 0;
    float cfg = 3;
    bool json = false, profile = false, dry_run = false;
};

void parse_size(const std::string& text, int& width, int& height) {
    int end = 0;
    const bool good = std::sscanf(text.c_str(), "%dx%d%n", &width, &height, &end) == 2 &&
                      end == static_cast<int>(text.size());
    require(good, "[generate] --size {} found, expected WIDTHxHEIGHT as in 256x256", text);
}

Json settings(const Options& options, const TextToImage::Request& request, const Model& model,
              const vk::DeviceInfo& device, uint64_t seed) {
    return {{"prompt", options.prompt},
            {"seed", seed},
            {"steps", request.steps},
            {"cfg", request.cfg},
            {"size", fmt::format("{}x{}", request.width, request.height)},
            {"sampler", options.sampler},
            {"pattern", options.pattern},
            {"precision", model.dtype == DType::f16 ? "fp16" : "fp32"},
            {"model", model.hash},
            {"device", device.name},
            {"driver", device.driver},
            {"version", kVersion}};
}

// What the picture says, except where the command line says otherwise.
void take_settings_from(const CLI::App& command, Options& options) {
    const auto chunks = read_png_text(options.from);
    const auto found = chunks.find(kChunk);
    require(found != chunks.end(),
            "[generate] {} carries no fovea settings; was it made by fovea generate?",
            options.from);
    const auto json = Json::parse(found->second, nullptr, false);
    require(json.is_object(), "[generate] the settings in {} are damaged", options.from);
    const auto take = [&](const char* name, const char* key, auto& value) {
        if (command.count(name) == 0 && json.contains(key)) json.at(key).get_to(value);
    };
    take("prompt", "prompt", options.prompt);
    take("--seed", "seed", options.seed);
    take("--steps", "steps", options.steps);
    take("--cfg", "cfg", options.cfg);
    take("--size", "size", options.size);
    take("--sampler", "sampler", options.sampler);
    take("--pattern", "pattern", options.pattern);
    take("--precision", "precision", options.precision);
}

// FILE for one picture; FILE-1.png, FILE-2.png … or DIR/SEED.png for several.
std::vector<fs::path> output_paths(const Options& options) {
    const fs::path output = options.output;
    std::error_code error;
    const bool folder = fs::is_directory(output, error) || options.output.ends_with('/');
    std::vector<fs::path> paths;
    for (int i = 0; i < options.count; ++i) {
        if (folder)
            paths.push_back(output /
                            fmt::format("fovea-{}.png", options.seed + static_cast<uint64_t>(i)));
        else if (options.count == 1)
            paths.push_back(output);
        else
            paths.push_back(output.parent_path() /
                            fmt::format("{}-{}.png", output.stem().string(), i + 1));
    }
    const fs::path parent = folder ? output : output.parent_path();
    if (!parent.empty()) fs::create_directories(parent, error);
    require(parent.empty() || fs::is_directory(parent),
            "[generate] the folder {} cannot be made: {}", parent.string(), error.message());
    require(folder || output.extension() == ".png",
            "[generate] -o {} found, expected a .png file or a folder", options.output);
    return paths;
}

void report_words(const Tokenizer::Result& words) {
    for (const auto& [word, suggestions] : words.unknown)
        log::warn(
            "the model does not know \"{}\"; it is left out{}", word,
            suggestions.empty() ? "" : fmt::format(". Near: {}", fmt::join(suggestions, ", ")));
    if (words.truncated)
        log::warn("the prompt is longer than the model reads; its end is left out");
}

void dry_run(vk::Stream& stream, const Model& model, const Options& options,
             const TextToImage::Request& request) {
    const auto probe = TextToImage::probe(stream, model, request);
    const double seconds = probe.total(request.steps);
    if (options.json) {
        fmt::print("{}\n", Json{{"seconds", seconds},
                                {"step_seconds", probe.step_seconds},
                                {"decode_seconds", probe.decode_seconds},
                                {"device_bytes", probe.peak_bytes}}
                               .dump(2));
        return;
    }
    fmt::print("{}×{}, {} steps, {} picture(s) on {}\n", request.width, request.height,
               request.steps, request.seeds.size(), stream.device().info().name);
    fmt::print("device memory  {}\n", size_text(probe.peak_bytes));
    fmt::print("time           about {} ({} a step, {} to decode), loading not counted\n",
               duration_text(seconds), duration_text(probe.step_seconds),
               duration_text(probe.decode_seconds));
}

void finish_profile(vk::Stream& stream, const fs::path& picture) {
    const auto& events = stream.profile_events();
    fmt::print(stderr, "{}", vk::profile_table(events));
    const fs::path trace = fs::path(picture).replace_extension(".trace.json");
    vk::write_chrome_trace(trace, events);
    fmt::print(stderr, "trace: {}\n", trace.string());
}

void run(const CLI::App& command, Options options) {
    const auto start = std::chrono::steady_clock::now();
    if (!options.from.empty()) take_settings_from(command, options);
    require(!options.prompt.empty(), "[generate] no prompt; try fovea generate \"a red apple\"");

    TextToImage::Request request;
    request.prompt = options.prompt;
    request.steps = options.steps;
    request.cfg = options.cfg;
    request.sampler = sampler_by_name(options.sampler);
    request.pattern = options.pattern;
    request.preview_every = options.preview;
    request.cancel = &interrupted();
    parse_size(options.size, request.width, request.height);
    request.seeds.clear();
    for (int i = 0; i < options.count; ++i)
        request.seeds.push_back(options.seed + static_cast<uint64_t>(i));
    const auto paths = options.dry_run ? std::vector<fs::path>{} : output_paths(options);

    vk::Device device(options.device);
    vk::Stream stream(device);
    if (options.profile) stream.profile(true);
    const Model model = Model::load(stream, find_model(options.model),
                                    choose_precision(device.info(), options.precision));
    report_words(
        model.tokenizer.encode(options.prompt, static_cast<int>(model.text.config().length)));
    if (options.dry_run) return dry_run(stream, model, options, request);

    const auto seconds_since_start = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    double first_step = 0;
    std::vector<Image> images;
    const fs::path preview_path = fs::path(paths[0]).replace_extension(".preview.png");
    {
        Progress progress("generate");
        request.on_step = [&](int done, int total) {
            if (done == 1) first_step = seconds_since_start();
            progress.update(done, total);
        };
        request.on_preview = [&](int, const std::vector<Image>& previews) {
            save_png(preview_path, tile_images(previews, static_cast<int>(previews.size())), {});
        };
        images = TextToImage::run(stream, model, request);
    }
    for (size_t i = 0; i < images.size(); ++i)
        save_png(
            paths[i], images[i],
            {{kChunk, settings(options, request, model, device.info(), request.seeds[i]).dump()}});
    if (options.preview > 0) fs::remove(preview_path);
    if (options.profile) finish_profile(stream, paths[0]);

    const double seconds = seconds_since_start();
    if (options.json) {
        auto list = Json::array();
        for (size_t i = 0; i < paths.size(); ++i) {
            auto entry = settings(options, request, model, device.info(), request.seeds[i]);
            entry["file"] = paths[i].string();
            list.push_back(std::move(entry));
        }
        fmt::print("{}\n", Json{{"pictures", list},
                                {"seconds", seconds},
                                {"first_step_seconds", first_step},
                                {"peak_device_bytes", device.peak_allocated()}}
                               .dump(2));
        return;
    }
    for (const auto& path : paths) fmt::print("{}\n", path.string());
    fmt::print(stderr, "{} in {} on {}\n",
               paths.size() == 1 ? "done" : fmt::format("{} pictures", paths.size()),
               duration_text(seconds), device.info().name);
}

}  // namespace

void add_generate(CLI::App& app) {
    auto* command = app.add_subcommand("generate", "Make a picture from a text");
    auto options = std::make_shared<Options>();
    command->footer(
        "Examples:\n"
        "  fovea generate \"a red apple on a blue background\"\n"
        "  fovea generate \"a rocket and a planet on a black background, 3d style\" -o "
        "space.png --seed 7\n"
        "  fovea generate \"a cat, blob style\" --count 8 -o cats/\n"
        "  fovea generate --from space.png --steps 40 -o better.png");
    command->add_option("prompt", options->prompt, "What to draw: objects, background, style");
    command->add_option("-o,--output", options->output, "A .png file, or a folder")
        ->capture_default_str();
    command->add_option("--seed", options->seed, "Same seed and device: same picture")
        ->capture_default_str();
    command->add_option("--steps", options->steps, "Steps from noise to picture")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    command
        ->add_option("--cfg", options->cfg,
                     "Classifier-free guidance: how strictly the text is followed; 1: off")
        ->check(CLI::Range(0.0f, 100.0f))
        ->capture_default_str();
    command->add_option("--count", options->count, "Pictures, with seeds SEED, SEED+1, …")
        ->check(CLI::Range(1, 256))
        ->capture_default_str();
    command
        ->add_option("--size", options->size,
                     "WIDTHxHEIGHT, multiples of 16 from 128 to 512; trained at 256x256")
        ->capture_default_str();
    command
        ->add_option("--sampler", options->sampler,
                     "euler, heun (two evaluations a step) or dpmpp2m")
        ->capture_default_str();
    command->add_option("--pattern", options->pattern,
                        "Self-attention pattern of every layer, as in dense or neighborhood:7x7; "
                        "default: the model's");
    command->add_option("--device", options->device,
                        "Device index or part of its name (see fovea info)");
    command->add_option("--precision", options->precision, "auto (fp16 on GPUs), fp16 or fp32")
        ->capture_default_str();
    command->add_option("--preview", options->preview, "Write NAME.preview.png every N steps")
        ->check(CLI::Range(0, 1000));
    command
        ->add_option("--from", options->from,
                     "Take prompt and settings from a picture that fovea made")
        ->check(CLI::ExistingFile);
    command->add_option("--model", options->model, "Model folder (or FOVEA_MODEL)");
    command->add_flag("--profile", options->profile, "Print time by op and write a Chrome trace");
    command->add_flag("--dry-run", options->dry_run,
                      "Only estimate memory and time, after a short probe");
    command->add_flag("--json", options->json, "Print JSON");
    command->callback([command, options] { run(*command, *options); });
}

}  // namespace fovea::apps
