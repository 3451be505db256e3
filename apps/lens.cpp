#include "pipelines/lens.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "apps/generation.h"
#include "apps/lens_sheet.h"
#include "apps/session.h"
#include "backend/error.h"
#include "backend/log.h"
#include "vision/prompt_words.h"

namespace fovea::apps {
namespace {

constexpr size_t kAcross = 5;  // maps in a line of the sheet

struct LensOptions {
    std::string prompt, output = "lens.png", size, sampler = "dpmpp2m", from, by, device,
                        precision = "auto", model;
    std::vector<std::string> words;
    std::vector<float> times{Lens::kReadingTimes.begin(), Lens::kReadingTimes.end()};
    std::vector<int64_t> layers;
    uint64_t seed = 0;
    int steps = 24, budget = 256;
    float cfg = 3;
    bool json = false;
};

/// A word, or words side by side that are one name, and its tokens.
struct Name {
    std::string text;
    std::vector<size_t> places;
};

std::vector<Name> names_of(const LensOptions& options, const Model& model,
                           const std::vector<std::string>& words) {
    std::vector<Name> names;
    for (const auto& word : options.words)
        names.push_back({word, find_phrase(model.tokenizer, words, word)});
    if (!names.empty()) return names;
    for (size_t i = 0; i < words.size(); ++i)
        if (!names_nothing(words[i])) names.push_back({words[i], {i}});
    require(!names.empty(), "[lens] the prompt has no word that a picture shows; --word names one");
    return names;
}

Lens::Request request_of(const LensOptions& options, const Model& model) {
    Lens::Request request;
    request.prompt = options.prompt;
    request.seed = options.seed;
    request.steps = options.steps;
    request.cfg = options.cfg;
    request.sampler = sampler_by_name(options.sampler);
    request.times = options.times;
    request.taps = {.layers = options.layers,
                    .by_layer = options.by == "layer",
                    .by_head = options.by == "head",
                    .by_step = options.by == "step",
                    .budget = static_cast<uint64_t>(options.budget) << 20};
    if (!options.from.empty()) {
        request.picture = load_image(options.from);
        fit_size(*request.picture, model.dit.config().size, request.width, request.height);
    }
    if (!options.size.empty()) parse_size("lens", options.size, request.width, request.height);
    return request;
}

std::string label_of(const Lens::Map& map, const LensOptions& options) {
    if (options.by == "layer") return fmt::format("layer {}", map.layer);
    if (options.by == "head") return fmt::format("head {}", map.head);
    if (options.by.empty()) return {};
    if (options.from.empty()) return fmt::format("step {}", map.step + 1);
    return fmt::format("time {:.2f}", options.times[static_cast<size_t>(map.step)]);
}

std::string percent(float share) {
    return share < 0.0995f ? fmt::format("{:.1f}%", 100 * share)
                           : fmt::format("{:.0f}%", 100 * share);
}

std::vector<HeatRow> rows_of(const Lens::Result& result, const std::vector<Name>& names,
                             const LensOptions& options) {
    std::vector<HeatRow> rows;
    for (const auto& map : result.maps) {
        HeatRow row{label_of(map, options), {}};
        for (const Name& name : names) {
            auto heat = result.heat(map, name.places);
            const float most = *std::max_element(heat.begin(), heat.end());
            row.cells.push_back({fmt::format("{} {}", name.text, percent(most)), std::move(heat)});
        }
        rows.push_back(std::move(row));
    }
    if (!options.by.empty()) return rows;
    std::vector<HeatRow> lines;
    for (auto& cell : rows.at(0).cells) {
        if (lines.empty() || lines.back().cells.size() == kAcross) lines.push_back({});
        lines.back().cells.push_back(std::move(cell));
    }
    return lines;
}

Json to_json(const Lens::Result& result, const std::vector<Name>& names) {
    auto maps = Json::array();
    for (const auto& map : result.maps)
        for (const Name& name : names) {
            const auto heat = result.heat(map, name.places);
            const auto most = std::max_element(heat.begin(), heat.end());
            const auto peak = static_cast<int64_t>(most - heat.begin());
            const auto middle = [](int64_t at, int64_t count) {
                return (static_cast<double>(at) + 0.5) / static_cast<double>(count);
            };
            Json entry{{"word", name.text},
                       {"peak",
                        {middle(peak % result.columns, result.columns),
                         middle(peak / result.columns, result.rows)}},
                       {"share", *most},
                       {"heat", heat}};
            if (map.layer >= 0) entry["layer"] = map.layer;
            if (map.head >= 0) entry["head"] = map.head;
            if (map.step >= 0) entry["step"] = map.step;
            maps.push_back(std::move(entry));
        }
    return {{"rows", result.rows}, {"columns", result.columns}, {"maps", maps}};
}

// A sheet of an earlier run says how it was made: the same again, but for what the command line
// says itself.
void take_settings(const CLI::App& command, LensOptions& o) {
    const auto text = read_png_text(o.from);
    const auto found = text.find(kSettingsName);
    if (found == text.end()) return;
    const Json json = Json::parse(found->second, nullptr, false);
    if (!json.is_object() || json.value("command", "") != "lens") return;
    const Settings settings("lens", command, o.from, found->second);
    settings.take("prompt", "prompt", o.prompt);
    settings.take("--word", "words", o.words);
    settings.take("--by", "by", o.by);
    settings.take("--layers", "layers", o.layers);
    settings.take("--times", "times", o.times);
    settings.take("--size", "size", o.size);
    settings.take("--seed", "seed", o.seed);
    settings.take("--steps", "steps", o.steps);
    settings.take("--cfg", "cfg", o.cfg);
    settings.take("--sampler", "sampler", o.sampler);
    settings.take("--precision", "precision", o.precision);
    o.from = json.value("picture", "");
}

void run(const CLI::App& command, LensOptions options, Host& host) {
    const auto start = std::chrono::steady_clock::now();
    if (options.from.ends_with(".png")) take_settings(command, options);
    if (options.prompt.empty() && !options.from.empty()) {
        options.prompt = prompt_in(settings_in(options.from));
        require(!options.prompt.empty(),
                "[lens] no prompt, and {} carries none; say what it shows: fovea lens \"an apple\" "
                "--from {}",
                options.from, options.from);
    }
    require(!options.prompt.empty(),
            "[lens] no prompt; try fovea lens \"a red apple on a blue background\"");
    for (const char* name : {"--steps", "--cfg", "--sampler"})
        require(options.from.empty() || command.count(name) == 0,
                "[lens] {} found beside a picture of --from, which is not drawn but read once at "
                "each of --times",
                name);
    require(!options.from.empty() || command.count("--times") == 0,
            "[lens] --times found without --from, where the maps are of the --steps");
    require(!options.output.empty(), "[lens] -o is empty, expected a .png file");
    require_png("lens", "-o", options.output);

    check_size("lens", options.size);
    sampler_by_name(options.sampler);
    Session& session = host.open(options.device);
    vk::Device& device = session.device();
    vk::Stream& stream = session.stream();
    const Model& model = session.model(options.model, options.precision);
    report_words(model, options.prompt);
    const auto length = static_cast<int>(model.text.config().length);
    // A word that is not there shows before anything runs.
    const auto names =
        names_of(options, model, model.tokenizer.encode(options.prompt, length).words);
    Lens::Request request = request_of(options, model);
    request.cancel = host.cancel();
    Lens::Result result;
    {
        Progress progress("lens", !host.quiet());
        request.on_step = [&](int done, int total) { progress.update(done, total); };
        result = Lens::run(stream, model, request);
    }
    const Image sheet =
        draw_heat_sheet(result.picture, rows_of(result, names, options),
                        static_cast<int>(result.rows), static_cast<int>(result.columns));
    Json settings{{"command", "lens"},
                  {"prompt", options.prompt},
                  {"words", options.words},
                  {"by", options.by},
                  {"layers", options.layers},
                  {"seed", options.seed},
                  {"size", fmt::format("{}x{}", request.width, request.height)},
                  {"precision", model.dtype == DType::f16 ? "fp16" : "fp32"},
                  {"model", model.hash},
                  {"device", device.info().name},
                  {"version", kVersion}};
    if (options.from.empty()) {
        settings["steps"] = options.steps;
        settings["cfg"] = options.cfg;
        settings["sampler"] = options.sampler;
    } else {
        settings["picture"] = options.from;
        settings["times"] = options.times;
    }
    save_png(options.output, sheet, {{kSettingsName, settings.dump()}});
    if (host.quiet()) return;
    if (options.json) {
        settings["file"] = options.output;
        settings.update(to_json(result, names));
        fmt::print("{}\n", settings.dump(2));
        return;
    }
    fmt::print("{}\n", options.output);
    log::say("{} word(s) in {} on {}\n", names.size(), duration_text(seconds_since(start)),
             device.info().name);
}

}  // namespace

void add_lens(CLI::App& app, const std::shared_ptr<Host>& host) {
    auto* command = app.add_subcommand("lens", "Show where each word of a prompt is in a picture");
    auto options = std::make_shared<LensOptions>();
    command->footer(
        "Examples:\n"
        "  fovea lens \"a cat left of a dog\"\n"
        "  fovea lens \"a birthday cake on a pink background\" --word \"birthday cake\" --by "
        "layer\n"
        "  fovea lens --from space.png --word rocket        the prompt is in the picture\n"
        "  fovea lens \"an apple\" --from photo.jpg -o where.png\n"
        "\n"
        "Without --from the picture is drawn first, and the maps are the mean of its steps. With "
        "it\n"
        "the picture is mixed with noise, at each of --times, and read once. A map is the share "
        "of\n"
        "attention that each 16x16 pixels give to the word; the figure beside the word is the "
        "largest,\n"
        "the ring where it is. docs/attention-maps.md");
    command->add_option("prompt", options->prompt,
                        "What to draw, or what the picture of --from shows");
    command->add_option("-o,--output", options->output, "The sheet, a .png file")
        ->capture_default_str();
    command->add_option(
        "--word", options->words,
        "Only this word or name, may be repeated; default: all that name something");
    command
        ->add_option("--from", options->from,
                     "Read this picture (PNG or JPEG); a sheet of lens: make it again")
        ->check(CLI::ExistingFile);
    command->add_option("--by", options->by, "A row of maps for each layer, head or step")
        ->check(CLI::IsMember({"layer", "head", "step"}));
    command->add_option("--layers", options->layers, "Read only these, as in 2,5; default: all")
        ->delimiter(',');
    command
        ->add_option("--times", options->times,
                     "With --from: parts of noise, above 0 (none) up to 1 (nothing else)")
        ->delimiter(',')
        ->capture_default_str();
    command->add_option("--budget", options->budget, "MiB that the maps may take")
        ->check(CLI::Range(1, 65536))
        ->capture_default_str();
    command->add_option("--size", options->size,
                        "WIDTHxHEIGHT, multiples of 16 from 128 to 512; default: 256x256, or near "
                        "the picture's");
    command->add_option("--seed", options->seed, "Of the noise")
        ->check(refuse_minus)
        ->capture_default_str();
    command->add_option("--steps", options->steps, "Steps from noise to picture")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    command->add_option("--cfg", options->cfg, "Classifier-free guidance; 1: off")
        ->check(CLI::Range(0.0f, 100.0f))
        ->capture_default_str();
    command->add_option("--sampler", options->sampler, "euler, heun or dpmpp2m")
        ->capture_default_str();
    command->add_option("--device", options->device,
                        "Device index or part of its name (see fovea info)");
    command->add_option("--precision", options->precision, "auto (fp16 on GPUs), fp16 or fp32")
        ->capture_default_str();
    command->add_option("--model", options->model, "Model folder (or FOVEA_MODEL)");
    command->add_flag("--json", options->json, "Print JSON, with every map");
    command->callback([command, options, host] { run(*command, *options, *host); });
}

}  // namespace fovea::apps
