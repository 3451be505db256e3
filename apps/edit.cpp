#include "pipelines/edit.h"

#include <fmt/format.h>

#include <memory>

#include "apps/generation.h"
#include "apps/lens_sheet.h"
#include "apps/session.h"
#include "backend/error.h"
#include "backend/log.h"
#include "backend/patterns/frames.h"
#include "vision/video.h"

namespace fovea::apps {
namespace {

struct Options {
    std::string input, output, from, to, size, settings, show_mask, device, precision = "auto",
                                                                            model;
    std::vector<std::string> swaps, additions, weights, mask_words;
    int start = 0, frames = 0;  ///< 0 frames: all
    Edit::Request values;       ///< the numbers
    bool json = false;
};

/// What is edited.
struct Given {
    std::vector<Image> frames;
    double fps = 0;        ///< 0: it is a picture
    std::string settings;  ///< that it was made with; empty: none

    bool is_clip() const { return fps > 0; }
};

Given load(const Options& o) {
    if (is_clip(o.input)) {
        Clip clip = load_video(o.input);
        const auto count = static_cast<int>(clip.frames.size());
        require(o.start + std::max(o.frames, 1) <= count,
                "[edit] --start {} --frames {} found, {} has {} frames", o.start,
                std::max(o.frames, 1), o.input, count);
        if (o.values.shared_frames != "all") parse_frames(o.values.shared_frames, ',');
        return {std::move(clip.frames), clip.fps, std::move(clip.text)};
    }
    require(o.start == 0 && o.frames == 0 && o.values.shared_frames == "all",
            "[edit] {} is a picture, --start, --frames and --shared-frames are for clips", o.input);
    return {{load_image(o.input)}, 0, settings_in(o.input)};
}

// The frames that are asked for, as many as the model takes.
void choose_frames(Given& given, const Options& o, const ClipLimits& limits) {
    const auto all = static_cast<int>(given.frames.size());
    const int count = o.frames > 0 ? o.frames : all - o.start;
    require(count <= limits.most_frames,
            "[edit] {} frames of {} found, expected at most {}: choose some, as with --start {} "
            "--frames {}",
            count, o.input, limits.most_frames, o.start, limits.most_frames);
    if (count > 1 && count < limits.least_frames)
        log::warn("{} frames, where the model has learnt clips of {} to {}", count,
                  limits.least_frames, limits.most_frames);
    given.frames.erase(given.frames.begin() + o.start + count, given.frames.end());
    given.frames.erase(given.frames.begin(), given.frames.begin() + o.start);
}

void check_output(const std::string& output, bool clip, bool quiet) {
    if (!clip)
        require(output.ends_with(".png"), "[edit] -o {} found, expected a .png file", output);
    else if (video_format(output) == VideoFormat::frames)
        return;  // the folder is made
    require_output("edit", "-o", output, quiet);
}

// Each frame with its part of a map (frames, rows, columns).
Image mask_sheet(const Edit::Result& result) {
    constexpr int kColumns = 8;
    const auto each = static_cast<size_t>(result.rows * result.columns);
    std::vector<Image> sheets;
    for (size_t i = 0; i < result.resized.size(); ++i) {
        const auto first = result.mask.begin() + static_cast<std::ptrdiff_t>(i * each);
        const std::vector<float> mask(first, first + static_cast<std::ptrdiff_t>(each));
        sheets.push_back(draw_heat_sheet(result.resized[i], {{"", {{"may change", mask}}}},
                                         static_cast<int>(result.rows),
                                         static_cast<int>(result.columns)));
    }
    return sheets.size() == 1 ? sheets[0] : tile_images(sheets, kColumns);
}

/// "apple=pear" → both sides.
std::pair<std::string, std::string> split(const char* option, const std::string& text) {
    const size_t at = text.find('=');
    require(at != std::string::npos && at > 0 && at + 1 < text.size(),
            "[edit] {} {} found, expected WORD=VALUE", option, text);
    return {text.substr(0, at), text.substr(at + 1)};
}

float number(const std::string& option, const std::string& text) {
    size_t end = 0;
    float value = 0;
    try {
        value = std::stof(text, &end);
    } catch (const std::exception&) {
        end = 0;
    }
    require(end > 0 && end == text.size(), "[edit] {} {} found, expected a number", option, text);
    return value;
}

// The target's prompt: as given, or the source's with words exchanged and added.
std::string target_of(const Options& options) {
    if (!options.to.empty()) {
        require(options.swaps.empty() && options.additions.empty(),
                "[edit] --to found beside --swap or --add, which make it from --from");
        return options.to;
    }
    std::string text = options.from;
    for (const auto& swap : options.swaps) {
        const auto [old, replacement] = split("--swap", swap);
        const size_t at = text.find(old);
        require(at != std::string::npos, "[edit] --swap {}: \"{}\" is not in \"{}\"", swap, old,
                text);
        text.replace(at, old.size(), replacement);
    }
    for (const auto& addition : options.additions) text += ", " + addition;
    require(text != options.from || !options.weights.empty(),
            "[edit] nothing to change; say what it should show with --to, --swap, --add or "
            "--weight");
    return text;
}

Json settings_of(const Options& o, const Edit::Request& request, const Given& given,
                 const Model& model, const vk::DeviceInfo& device) {
    Json json{{"picture", o.input},
              {"from", request.source},
              {"to", request.target},
              {"size", fmt::format("{}x{}", request.width, request.height)},
              {"steps", request.steps},
              {"cfg", request.cfg},
              {"strength", request.strength},
              {"keep_cross", request.keep_cross},
              {"keep_self", request.keep_self},
              {"exchange", request.exchange},
              {"weights", o.weights},
              {"mask", request.mask},
              {"mask_words", o.mask_words},
              {"precision", model.dtype == DType::f16 ? "fp16" : "fp32"},
              {"model", model.hash},
              {"device", device.name},
              {"driver", device.driver},
              {"version", kVersion}};
    if (given.is_clip()) {
        json["start"] = o.start;
        json["frames"] = request.frames.size();
        json["fps"] = given.fps;
        json["shared_frames"] = request.shared_frames;
    }
    return json;
}

void take_settings(const CLI::App& command, Options& o) {
    const Settings settings("edit", command, o.settings, settings_in(o.settings));
    settings.take("picture", "picture", o.input);
    settings.take("--from", "from", o.from);
    if (o.swaps.empty() && o.additions.empty()) settings.take("--to", "to", o.to);
    settings.take("--size", "size", o.size);
    settings.take("--steps", "steps", o.values.steps);
    settings.take("--cfg", "cfg", o.values.cfg);
    settings.take("--strength", "strength", o.values.strength);
    settings.take("--keep-cross", "keep_cross", o.values.keep_cross);
    settings.take("--keep-self", "keep_self", o.values.keep_self);
    settings.take("--exchange", "exchange", o.values.exchange);
    settings.take("--weight", "weights", o.weights);
    settings.take("--mask", "mask", o.values.mask);
    settings.take("--mask-word", "mask_words", o.mask_words);
    settings.take("--start", "start", o.start);
    settings.take("--frames", "frames", o.frames);
    settings.take("--shared-frames", "shared_frames", o.values.shared_frames);
    settings.take("--precision", "precision", o.precision);
}

void run(const CLI::App& command, Options options, Host& host) {
    const auto start = std::chrono::steady_clock::now();
    if (!options.settings.empty()) take_settings(command, options);
    require(!options.input.empty(),
            "[edit] no picture; try fovea edit apple.png --from \"a red apple\" --to \"a pear\"");
    Given given = load(options);
    if (options.output.empty()) options.output = given.is_clip() ? "edited.webp" : "edited.png";
    check_output(options.output, given.is_clip(), host.quiet());
    require_png("edit", "--show-mask", options.show_mask);

    Edit::Request request = options.values;
    if (options.from.empty()) options.from = prompt_in(given.settings);
    require(!options.from.empty(),
            "[edit] {} does not say what it shows; say it with --from \"a red apple\"",
            options.input);
    request.source = options.from;
    request.target = target_of(options);
    request.mask_words = options.mask_words;
    for (const auto& weight : options.weights) {
        const auto [word, factor] = split("--weight", weight);
        request.weights.emplace_back(word, number("--weight " + word, factor));
    }
    request.cancel = host.cancel();
    check_size("edit", options.size);

    Session& session = host.open(options.device);
    vk::Device& device = session.device();
    vk::Stream& stream = session.stream();
    const Model& model = session.model(options.model, options.precision);
    report_words(model, request.source);
    report_words(model, request.target);
    if (given.is_clip()) choose_frames(given, options, clip_limits(model.dit.config()));
    fit_size(given.frames[0],
             given.is_clip() ? model.dit.config().clip_size : model.dit.config().size,
             request.width, request.height);
    if (!options.size.empty()) parse_size("edit", options.size, request.width, request.height);
    request.frames = std::move(given.frames);
    Edit::Result result;
    {
        Progress progress("edit", !host.quiet());
        request.on_step = [&](int done, int total) { progress.update(done, total); };
        result = Edit::run(stream, model, request);
    }
    Json settings = settings_of(options, request, given, model, device.info());
    std::string encoded = "PNG";
    if (given.is_clip())
        encoded = save_video(
            options.output,
            {.frames = std::move(result.frames), .fps = given.fps, .text = settings.dump()});
    else
        save_png(options.output, result.frames[0], {{kSettingsName, settings.dump()}});
    if (!options.show_mask.empty()) save_png(options.show_mask, mask_sheet(result));
    if (host.quiet()) return;
    const double seconds = seconds_since(start);
    double share = 0;
    for (const float value : result.mask) share += value / static_cast<double>(result.mask.size());
    if (options.json) {
        settings["file"] = options.output;
        settings["encoded"] = encoded;
        settings["may_change"] = share;
        settings["mask_map"] = result.mask;
        settings["rows"] = result.rows;
        settings["columns"] = result.columns;
        settings["inversion_residual"] = result.residual;
        settings["seconds"] = seconds;
        fmt::print("{}\n", settings.dump(2));
        return;
    }
    fmt::print("{}\n", options.output);
    log::say("{:.0f} % of the {} could change; {} on {}\n", 100 * share,
             given.is_clip() ? "clip" : "picture", duration_text(seconds), device.info().name);
}

}  // namespace

void add_edit(CLI::App& app, const std::shared_ptr<Host>& host) {
    auto* command =
        app.add_subcommand("edit", "Change what a text says of a picture or a clip, keep the rest");
    auto options = std::make_shared<Options>();
    Edit::Request& values = options->values;
    command->footer(
        "Examples:\n"
        "  fovea edit apple.png --from \"a red apple on a blue background\" --to \"a pear on a "
        "blue "
        "background\"\n"
        "  fovea edit space.png --swap rocket=duck                 what fovea made says what it "
        "shows\n"
        "  fovea edit space.png --swap \"black background=green background\" -o green.png\n"
        "  fovea edit cat.jpg --from \"a cat\" --add \"blob style\" --keep-self 0.5\n"
        "  fovea edit cake.png --from \"a birthday cake, 3d style\" --weight 3d=2\n"
        "  fovea edit --settings edited.png --strength 0.9 -o more.png\n"
        "  fovea edit heart.webp --from \"a red heart beating\" --to \"a yellow star beating\" -o "
        "star.webp\n"
        "  fovea edit long.mp4 --start 40 --frames 24 --from \"a cat\" --to \"a dog\" -o dog.mp4\n"
        "\n"
        "The picture is taken back to noise with the words of --from, and from --strength on those "
        "of\n"
        "--to lead it forth again. Words that both have keep their places (--keep-cross), tokens "
        "outside\n"
        "the changed words keep what they look at (--keep-self), and outside the mask nothing "
        "changes.\n"
        "Too little changes: more --strength, less --keep-self. Too much: the other way, or a "
        "higher\n"
        "--mask; --show-mask draws what could change. docs/editing.md");
    command->add_option("picture", options->input,
                        "PNG or JPEG; or a clip: MP4, WebP, GIF, a folder or frame-%04d.png");
    command->add_option("--from", options->from,
                        "What it shows; default: what it was made from, if fovea made it");
    command->add_option("--to", options->to, "What it should show");
    command->add_option("--swap", options->swaps, "OLD=NEW: words of --from exchanged");
    command->add_option("--add", options->additions, "Words behind those of --from");
    command->add_option("--weight", options->weights,
                        "WORD=FACTOR of --to: its attention more (1.8) or less (0.5)");
    command->add_option("-o,--output", options->output,
                        "A .png file, default edited.png; of a clip a name with .mp4, .webp or "
                        ".gif, a folder/ or frame-%04d.png, default edited.webp");
    command
        ->add_option("--start", options->start, "Of a clip: frames to leave out at its beginning")
        ->check(CLI::Range(0, kMaxClipFrames));
    command
        ->add_option("--frames", options->frames,
                     "Of a clip: so many, at most 24; default: all from --start on")
        ->check(CLI::Range(1, kMaxClipFrames));
    command
        ->add_option("--shared-frames", values.shared_frames,
                     "Of a clip, frames whose tokens each frame sees besides its own: all, as the "
                     "model was trained; none; or some of first, middle, last, previous, next, as "
                     "in first,previous")
        ->capture_default_str();
    command->add_option("--steps", values.steps, "Steps of the whole way; back and forth")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    command->add_option("--cfg", values.cfg, "Classifier-free guidance; 1: off, and half the work")
        ->check(CLI::Range(0.0f, 100.0f))
        ->capture_default_str();
    command
        ->add_option("--strength", values.strength,
                     "How far back: 0 the picture itself, 1 noise alone")
        ->check(CLI::Range(0.0f, 1.0f))
        ->capture_default_str();
    command
        ->add_option("--keep-cross", values.keep_cross,
                     "First part of the steps in which words of both prompts keep their maps")
        ->check(CLI::Range(0.0f, 1.0f))
        ->capture_default_str();
    command
        ->add_option("--keep-self", values.keep_self,
                     "First part in which tokens outside the mask look where the picture's do")
        ->check(CLI::Range(0.0f, 1.0f))
        ->capture_default_str();
    command->add_flag("--exchange", values.exchange,
                      "New words take the maps of those they replace: their outline stays");
    command
        ->add_option("--mask", values.mask,
                     "Threshold of where the changed words are, 0 to 1; 0: all may change. Words "
                     "without a place, such as a style's: where the things are whose names stay; "
                     "for another background all but those; without any of them the whole picture")
        ->check(CLI::Range(0.0f, 1.0f))
        ->capture_default_str();
    command->add_option("--mask-word", options->mask_words,
                        "Only where this word of either prompt is may change; may be repeated");
    command->add_option("--show-mask", options->show_mask, "Draw it to this .png file");
    command->add_option("--size", options->size,
                        "WIDTHxHEIGHT, multiples of 16 from 128 to 512; default: near the "
                        "picture's, at most 256; of clips 128 in the shorter side");
    command->add_option("--settings", options->settings, "Take everything from an edited one")
        ->check(CLI::ExistingPath);
    command->add_option("--device", options->device,
                        "Device index or part of its name (see fovea info)");
    command->add_option("--precision", options->precision, "auto (fp16 on GPUs), fp16 or fp32")
        ->capture_default_str();
    command->add_option("--model", options->model, "Model folder (or FOVEA_MODEL)");
    command->add_flag("--json", options->json, "Print JSON");
    command->callback([command, options, host] { run(*command, *options, *host); });
}

}  // namespace fovea::apps
