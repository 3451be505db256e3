#include "vision/video.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <limits>
#include <memory>

#include "apps/generation.h"
#include "apps/session.h"
#include "backend/error.h"
#include "backend/log.h"
#include "backend/patterns/registry.h"
#include "pipelines/text_to_video.h"
#include "vision/file.h"

namespace fovea::apps {
namespace {

namespace fs = std::filesystem;

constexpr int kAsTrained = std::numeric_limits<int>::min();

struct VideoOptions : GenerationOptions {
    int frames = kAsTrained, fps = 0, dense_steps = 0;  // 0 fps: as the model was trained
    std::vector<int> dense_layers;
    std::string image, calibration, cache;
};

void take_settings(const CLI::App& command, VideoOptions& o) {
    const Settings from("video", command, o.from, load_video(o.from).text);
    require(from.has("frames"),
            "[video] {} says nothing of frames in its settings: was it made by another command?",
            o.from);
    from.take(o);
    from.take("--frames", "frames", o.frames);
    from.take("--fps", "fps", o.fps);
    from.take("--dense-steps", "dense_steps", o.dense_steps);
    from.take("--dense-layers", "dense_layers", o.dense_layers);
    if (o.pattern.find("reordered") != std::string::npos)
        from.take("--calibration", "calibration", o.calibration);
    from.take("--cache", "cache", o.cache);
    from.take("--image", "image", o.image);
}

// Before the work, which else would be lost.
void require_output(const VideoOptions& options, bool quiet) {
    const fs::path output = options.output;
    if (video_format(output) == VideoFormat::frames) return;
    std::error_code error;
    const fs::path parent = output.parent_path();
    if (!parent.empty()) fs::create_directories(parent, error);
    require(parent.empty() || fs::is_directory(parent), "[video] the folder {} cannot be made: {}",
            parent.string(), error.message());
    if (!quiet) require_writable(output);
}

TextToVideo::Request request_of(const VideoOptions& options, const ClipLimits& limits) {
    TextToVideo::Request request;
    fill(request, options);
    request.seed = options.seed;
    request.frames = options.frames == kAsTrained ? limits.frames : options.frames;
    request.method = {.pattern = options.pattern,
                      .dense_steps = options.dense_steps,
                      .dense_layers = options.dense_layers,
                      .calibration = options.calibration,
                      .cache = options.cache};
    const std::string size =
        options.size.empty() ? fmt::format("{0}x{0}", limits.size) : options.size;
    parse_size("video", size, request.width, request.height);
    if (!options.image.empty()) request.first_frame = load_image(options.image);
    return request;
}

Json clip_settings(const VideoOptions& options, const TextToVideo::Request& request, int fps,
                   const Model& model, const vk::DeviceInfo& device) {
    Json json =
        settings(options, request, model, device, request.seed, request.width, request.height);
    json["frames"] = request.frames;
    json["fps"] = fps;
    json["dense_steps"] = options.dense_steps;
    json["dense_layers"] = options.dense_layers;
    if (!options.calibration.empty()) json["calibration"] = options.calibration;
    if (!options.cache.empty()) json["cache"] = options.cache;
    if (!options.image.empty()) json["image"] = options.image;
    return json;
}

void dry_run(vk::Stream& stream, const Model& model, const VideoOptions& options,
             const TextToVideo::Request& request) {
    const auto memory = TextToVideo::memory(stream, model, request);
    const auto probe = TextToVideo::probe(stream, model, request);
    report({.what = fmt::format("{} frames of {}×{}, {} steps", request.frames, request.width,
                                request.height, request.steps),
            .seconds = probe.total(request.steps),
            .step_seconds = probe.step_seconds,
            .decode_seconds = probe.decode_seconds,
            .passes = probe.passes,
            .device_bytes = memory.total()},
           stream.device().info(), options.json);
}

void run(const CLI::App& command, VideoOptions options, Host& host) {
    const auto start = std::chrono::steady_clock::now();
    if (!options.from.empty()) take_settings(command, options);
    require(!options.prompt.empty(), "[video] no prompt; try fovea video \"a red heart beating\"");
    require(options.calibration.empty() || options.pattern.find("reordered") != std::string::npos,
            "[video] --calibration found beside --pattern {}, expected --pattern reordered, or "
            "rettention:of=reordered",
            options.pattern);
    check_size("video", options.size);
    DenoiseRequest checked;
    fill(checked, options);
    validate(checked, "video");
    if (!options.dry_run) require_output(options, host.quiet());
    Session& session = host.open(options.device);
    vk::Device& device = session.device();
    vk::Stream& stream = session.stream();
    if (options.profile) stream.profile(true);
    const Model& model = session.model(options.model, options.precision);
    const ClipLimits limits = clip_limits(model.dit.config());
    TextToVideo::Request request = request_of(options, limits);
    request.cancel = host.cancel();
    const int fps = options.fps > 0 ? options.fps : limits.fps;
    report_words(model, options.prompt);
    if (options.dry_run) return dry_run(stream, model, options, request);

    const fs::path output = options.output;
    const fs::path preview_path =
        (output.has_filename() ? output : output.parent_path()).string() + ".preview.png";
    const PreviewFile until_done(options.preview > 0 ? preview_path : "");
    Clip clip{.frames = {},
              .fps = static_cast<double>(fps),
              .text = clip_settings(options, request, fps, model, device.info()).dump()};
    TextToVideo::Result result;
    {
        Progress progress("video", !host.quiet());
        request.on_step = [&](int done, int total) { progress.update(done, total); };
        std::vector<Image> strip;  // a row a preview
        request.on_preview = [&](int, const std::vector<Image>& frames) {
            strip.insert(strip.end(), frames.begin(), frames.end());
            save_png(preview_path, tile_images(strip, static_cast<int>(frames.size())));
        };
        result = TextToVideo::run(stream, model, request);
    }
    clip.frames = std::move(result.frames);
    const std::string encoded = save_video(output, clip);
    if (options.profile) finish_profile(stream, output);

    if (host.quiet()) return;
    const double seconds = seconds_since(start);
    if (options.json) {
        Json json = Json::parse(clip.text);
        json["file"] = output.string();
        json["encoded"] = encoded;
        json["density"] = result.density;
        json["computed"] = result.computed;
        json["seconds"] = seconds;
        json["peak_device_bytes"] = device.peak_allocated();
        fmt::print("{}\n", json.dump(2));
        return;
    }
    fmt::print("{}\n", output.string());
    const std::string saved =
        result.density < 1 || result.computed < 1
            ? fmt::format(" ({:.0f} % of attention's pairs, {:.0f} % of the layers)",
                          100 * result.density, 100 * result.computed)
            : "";
    log::say("{} frames as {} in {} on {}{}\n", clip.frames.size(), encoded, duration_text(seconds),
             device.info().name, saved);
}

// What fits a grid of three axes and needs no file.
std::vector<std::string> rules_help() {
    std::vector<std::string> lines = pattern_help();
    std::erase_if(lines, [](const std::string& line) {
        return !line.starts_with("dense") && !line.starts_with("neighborhood") &&
               !line.starts_with("radial") && !line.starts_with("frames");
    });
    return lines;
}

}  // namespace

void add_video(CLI::App& app, const std::shared_ptr<Host>& host) {
    auto* command = app.add_subcommand("video", "Make a clip from a text");
    auto options = std::make_shared<VideoOptions>();
    options->output = "fovea.mp4";
    options->pattern = "dense";
    command->footer(fmt::format(
        "Examples:\n"
        "  fovea video \"a red heart beating\"\n"
        "  fovea video \"a rocket moving up on a black background\" -o rocket.webp --seed 7\n"
        "  fovea video \"a cat bouncing\" --frames 24 -o cat.gif\n"
        "  fovea video \"a panda moving to the right\" --image panda.png -o panda.mp4\n"
        "  fovea video --from heart.mp4 --seed 2 -o heart2.mp4\n"
        "  fovea video \"a clock turning\" --size 256x256 --pattern radial --dense-steps 6\n"
        "\n"
        "Patterns are over (frames, rows, columns) of 16x16 pixels:\n  {}\n  {}\n"
        "auto is {} from {} tokens on (16 frames of 256x256), dense below.\n"
        "\n"
        "Caches:\n  {}\n\n{}",
        fmt::join(rules_help(), "\n  "), fmt::join(method_help(), "\n  "), kAutoPattern,
        kAutoTokens, fmt::join(cache_help(), "\n  "), guidance_footer()));
    command->add_option("prompt", options->prompt,
                        "What to show: objects, how they move, background, style");
    command
        ->add_option("-o,--output", options->output,
                     "A name with .mp4, .webp or .gif; a folder/ or frame-%04d.png for frames")
        ->capture_default_str();
    command->add_option("--frames", options->frames,
                        "8 to 24; default: 16, as the model was trained");
    command->add_option("--fps", options->fps, "Frames a second of the file; default: 8")
        ->check(CLI::Range(1, 100));
    command->add_option("--size", options->size,
                        "WIDTHxHEIGHT, multiples of 16 from 128 to 512; default: 128x128");
    command
        ->add_option("--image", options->image,
                     "Begin with this picture (PNG or JPEG), resized to the clip's size")
        ->check(CLI::ExistingFile);
    command
        ->add_option(
            "--pattern", options->pattern,
            "Self-attention: dense, radial[:decay], neighborhood:TxHxW[:stride], "
            "frames:first+previous, reordered, rectified, rettention:of=…, or auto; see below")
        ->capture_default_str();
    command
        ->add_option("--calibration", options->calibration,
                     "Of fovea calibrate at this size and length, for --pattern reordered")
        ->check(CLI::ExistingFile);
    command->add_option("--cache", options->cache,
                        "Features kept from step to step: runs or threshold, see below");
    command
        ->add_option("--dense-steps", options->dense_steps,
                     "The first so many steps see everything, whatever the pattern")
        ->check(CLI::Range(0, 1000));
    command
        ->add_option("--dense-layers", options->dense_layers,
                     "These layers see everything, as in 0,7")
        ->delimiter(',');
    add_generation_options(*command, *options);
    command->callback([command, options, host] { run(*command, *options, *host); });
}

}  // namespace fovea::apps
