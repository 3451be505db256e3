#include "apps/generation.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "backend/log.h"
#include "vision/file.h"
#include "vision/video.h"

namespace fovea::apps {

namespace fs = std::filesystem;

void require_distinct(const char* command, const std::vector<OutputFile>& files) {
    const auto place = [](const OutputFile& file) {
        const fs::path path = fs::weakly_canonical(fs::absolute(file.path));
        return path.has_filename() ? path : path.parent_path();
    };
    for (size_t a = 0; a < files.size(); ++a)
        for (size_t b = 0; b < a; ++b)
            require(files[a].path.empty() || files[b].path.empty() ||
                        place(files[a]) != place(files[b]),
                    "[{}] {} and {} both name {}, expected a file each", command, files[b].option,
                    files[a].option, files[a].path);
}

void require_output(const char* command, const char* option, const std::string& path, bool quiet) {
    require_folder_of(command, option, path);
    std::error_code error;
    require(!fs::is_directory(path, error),
            "[{}] {} {} found, which is a folder: expected the name of a file", command, option,
            path);
    if (!quiet && !path.empty()) require_writable(path);
}

std::string refuse_minus(const std::string& word) {
    return word.find('-') != std::string::npos
               ? fmt::format("{} found, expected a whole number, 0 or more", word)
               : "";
}

std::string json_text(const Json& json, int indent) {
    return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

void add_generation_options(CLI::App& command, GenerationOptions& o) {
    command.add_option("--seed", o.seed, "Same seed and device: same result")
        ->check(refuse_minus)
        ->capture_default_str();
    command.add_option("--steps", o.steps, "Steps from noise to result")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    command
        .add_option("--cfg", o.cfg,
                    "Classifier-free guidance: how strictly the text is followed; 1: off; default: "
                    "3, or what --guidance says")
        ->check(CLI::Range(0.0f, 100.0f));
    command
        .add_option("--guidance", o.guidance,
                    "Guidance by any of several terms, as in cfg:4,pag:2@blocks=3-5, see below; "
                    "--cfg 4 is short for cfg:4")
        ->check([](const std::string& text) {
            return text.empty() ? "nothing found, expected terms as in cfg:3,pag:1" : "";
        });
    command.add_flag("--entropy-scale", o.entropy_scale,
                     "For sizes far from the training's: logits of self-attention scaled with the "
                     "number of keys");
    command.add_option("--sampler", o.sampler, "euler, heun (two evaluations a step) or dpmpp2m")
        ->capture_default_str();
    command.add_option("--device", o.device, "Device index or part of its name (see fovea info)");
    command.add_option("--precision", o.precision, "auto (fp16 on GPUs), fp16 or fp32")
        ->capture_default_str();
    command.add_option("--preview", o.preview, "Write NAME.preview.png every N steps")
        ->check(CLI::Range(0, 1000));
    command.add_option("--from", o.from, "Take prompt and settings from a result that fovea made")
        ->check([](const std::string& path) {  // frames may be a pattern
            std::error_code error;
            return fs::exists(path, error) || path.find('%') != std::string::npos
                       ? ""
                       : "Path does not exist: " + path;
        });
    command.add_option("--model", o.model, "Model folder (or FOVEA_MODEL)");
    command.add_flag("--profile", o.profile, "Print time by op and write a Chrome trace");
    command.add_flag("--dry-run", o.dry_run, "Only estimate memory and time, after a short probe");
    command.add_flag("--json", o.json, "Print JSON");
}

std::string guidance_footer() {
    return fmt::format("Guidance, terms apart by commas, S a scale (docs/guidance.md):\n  {}",
                       fmt::join(guidance_help(), "\n  "));
}

void parse_size(const char* command, const std::string& text, int& width, int& height) {
    int end = 0;
    const bool good = std::sscanf(text.c_str(), "%dx%d%n", &width, &height, &end) == 2 &&
                      end == static_cast<int>(text.size());
    require(good, "[{}] --size {} found, expected WIDTHxHEIGHT as in 256x256", command, text);
}

void check_size(const char* command, const std::string& text) {
    if (text.empty()) return;
    int width = 0, height = 0;
    parse_size(command, text, width, height);
    validate_sides(width, height, command);
}

void fit_size(const Image& picture, int64_t longest, int& width, int& height) {
    const double w = picture.width, h = picture.height;
    const auto most = static_cast<double>(longest);
    const double scale =
        std::clamp(most / std::max(w, h), std::min(1.0, kMinSide / std::min(w, h)), 1.0);
    const auto side = [&](double own) {
        const auto steps = static_cast<int>(std::lround(own * scale / kSideMultiple));
        return std::clamp(steps * kSideMultiple, kMinSide, kMaxSide);
    };
    width = side(w);
    height = side(h);
}

void fill(DenoiseRequest& request, const GenerationOptions& options) {
    request.prompt = options.prompt;
    request.steps = options.steps;
    request.entropy_scale = options.entropy_scale;
    if (options.cfg) request.cfg = *options.cfg;
    if (!options.guidance.empty()) {
        request.guidance = parse_guidance(options.guidance);
        const GuidanceTerm* of_text = request.guidance.of_text();
        require(!options.cfg || !of_text,
                "[guidance] --cfg found beside {} in --guidance {}{}, expected one of them",
                of_text ? name_of(of_text->kind) : "", options.guidance,
                options.from.empty() ? "" : " (that of --from, unless it is given)");
        if (options.cfg)
            request.guidance.terms.insert(request.guidance.terms.begin(),
                                          cfg_guidance(*options.cfg).terms[0]);
    }
    request.sampler = sampler_by_name(options.sampler);
    request.preview_every = options.preview;
    request.cancel = &interrupted();
}

std::vector<fs::path> output_paths(const char* command, const std::string& asked, uint64_t seed,
                                   int count) {
    const fs::path output = asked;
    std::error_code error;
    const bool folder = fs::is_directory(output, error) || asked.ends_with('/');
    std::vector<fs::path> paths;
    for (int i = 0; i < count; ++i) {
        if (folder)
            paths.push_back(output / fmt::format("fovea-{}.png", seed + static_cast<uint64_t>(i)));
        else if (count == 1)
            paths.push_back(output);
        else
            paths.push_back(output.parent_path() /
                            fmt::format("{}-{}.png", output.stem().string(), i + 1));
    }
    const fs::path parent = folder ? output : output.parent_path();
    if (!parent.empty()) fs::create_directories(parent, error);
    require(parent.empty() || fs::is_directory(parent), "[{}] the folder {} cannot be made: {}",
            command, parent.string(), error.message());
    require(folder || output.extension() == ".png",
            "[{}] -o {} found, expected a .png file or a folder", command, asked);
    return paths;
}

Json settings(const GenerationOptions& options, const DenoiseRequest& request, const Model& model,
              const vk::DeviceInfo& device, uint64_t seed, int width, int height) {
    const Guidance guidance = guidance_of(request);
    const GuidanceTerm* of_text = guidance.of_text();
    Json json{{"prompt", options.prompt},
              {"seed", seed},
              {"steps", request.steps},
              {"cfg", of_text ? of_text->scale : 1},
              {"size", fmt::format("{}x{}", width, height)},
              {"sampler", options.sampler},
              {"pattern", options.pattern},
              {"precision", model.dtype == DType::f16 ? "fp16" : "fp32"},
              {"model", model.hash},
              {"device", device.name},
              {"driver", device.driver},
              {"version", kVersion}};
    if (options.entropy_scale) json["entropy_scale"] = true;
    // Whole: a --cfg beside it is part of it.
    if (!options.guidance.empty())
        json["guidance"] = options.cfg ? fmt::format("cfg:{},{}", *options.cfg, options.guidance)
                                       : options.guidance;
    return json;
}

std::string settings_in(const std::string& path) {
    if (is_clip(path)) return load_video(path).text;
    if (!path.ends_with(".png")) return {};
    const auto text = read_png_text(path);
    const auto found = text.find(kSettingsName);
    return found == text.end() ? "" : found->second;
}

std::string prompt_in(const std::string& settings) {
    const Json json = Json::parse(settings, nullptr, false);
    return json.is_object() ? json.value("to", json.value("prompt", "")) : "";
}

Settings::Settings(const char* command, const CLI::App& app, const std::string& file,
                   const std::string& text)
    : app_(app), command_(command), file_(file) {
    require(!text.empty(), "[{}] {} carries no fovea settings; was it made by fovea {}?", command,
            file, command);
    json_ = Json::parse(text, nullptr, false);
    require(json_.is_object(), "[{}] the settings in {} are damaged", command, file);
}

void Settings::take(GenerationOptions& o) const {
    take("prompt", "prompt", o.prompt);
    take("--seed", "seed", o.seed);
    take("--steps", "steps", o.steps);
    // Guidance says it all, that of the file or of the command line.
    take("--guidance", "guidance", o.guidance);
    if (!o.cfg && o.guidance.empty() && json_.contains("cfg")) o.cfg = json_.at("cfg").get<float>();
    take("--size", "size", o.size);
    take("--sampler", "sampler", o.sampler);
    take("--entropy-scale", "entropy_scale", o.entropy_scale);
    take("--pattern", "pattern", o.pattern);
    take("--precision", "precision", o.precision);
}

std::vector<std::string> word_warnings(const Model& model, const std::string& prompt) {
    std::vector<std::string> warnings;
    const auto words = model.tokenizer.encode(prompt, static_cast<int>(model.text.config().length));
    for (const auto& [word, suggestions] : words.unknown)
        warnings.push_back(fmt::format(
            "the model does not know \"{}\"; it is left out{}", word,
            suggestions.empty() ? "" : fmt::format(". Near: {}", fmt::join(suggestions, ", "))));
    if (words.truncated)
        warnings.push_back("the prompt is longer than the model reads; its end is left out");
    return warnings;
}

void report_words(const Model& model, const std::string& prompt) {
    for (const auto& warning : word_warnings(model, prompt)) log::warn("{}", warning);
}

std::string parted_prompt(const std::filesystem::path& model, const std::string& prompt) {
    constexpr std::string_view kAnd = " and ";
    if (prompt.find(kAnd) == std::string::npos) return {};
    const Concepts concepts = Concepts::load(model);
    const Wanted joined = read_prompt(concepts, prompt);
    if (joined.objects.size() != 2 || !joined.relation.empty()) return {};
    for (size_t at = prompt.find(kAnd); at != std::string::npos; at = prompt.find(kAnd, at + 1)) {
        std::string parted = prompt;
        parted.replace(at, kAnd.size(), " left of ");
        // Not within a name, as in "fork and knife".
        if (read_prompt(concepts, parted).objects == joined.objects) return parted;
    }
    return {};
}

void report(const Estimate& e, const vk::DeviceInfo& device, bool json) {
    if (json) {
        fmt::print("{}\n", Json{{"seconds", e.seconds},
                                {"step_seconds", e.step_seconds},
                                {"decode_seconds", e.decode_seconds},
                                {"passes_a_step", e.passes},
                                {"device_bytes", e.device_bytes}}
                               .dump(2));
        return;
    }
    fmt::print("{} on {}\n", e.what, device.name);
    fmt::print("device memory  {}\n", size_text(e.device_bytes));
    fmt::print("time           about {} ({} a step, {} to decode), loading not counted\n",
               duration_text(e.seconds), duration_text(e.step_seconds),
               duration_text(e.decode_seconds));
    fmt::print("guidance       {:.2f} passes of the model a step; without any: 1\n", e.passes);
}

void finish_profile(vk::Stream& stream, const std::filesystem::path& result) {
    const auto& events = stream.profile_events();
    log::say("{}", vk::profile_table(events));
    const auto trace = std::filesystem::path(result).replace_extension(".trace.json");
    vk::write_chrome_trace(trace, events);
    log::say("trace: {}\n", trace.string());
}

}  // namespace fovea::apps
