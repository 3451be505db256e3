#include "pipelines/segment.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>

#include "apps/app.h"
#include "apps/generation.h"
#include "apps/segment_draw.h"
#include "apps/segment_interactive.h"
#include "apps/segment_prompt.h"
#include "apps/session.h"
#include "backend/error.h"
#include "backend/log.h"
#include "pipelines/refer.h"
#include "pipelines/segment_clip.h"
#include "vision/file.h"
#include "vision/video.h"

namespace fovea::apps {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kNothingFound = 3;  // exit code

struct SegmentOptions {
    std::string input, words, box, earlier, output, overlay, cutout, json_file;
    std::vector<std::string> points, negatives;
    std::string device, precision = "auto", model;
    int frame = 0, grid = 16;
    bool everything = false, interactive = false, json = false, zero_shot = false, refine = false;
};

SegmentPrompt prompt_of(const SegmentOptions& options) {
    SegmentPrompt prompt;
    for (const auto& text : options.points) add_points(prompt, "--point", text, true);
    for (const auto& text : options.negatives) add_points(prompt, "--negative", text, false);
    if (!options.box.empty()) set_box(prompt, "--box", options.box);
    prompt.words = options.words;
    if (!options.earlier.empty()) {
        const Mask mask = mask_of(load_image(options.earlier));
        require(mask.count() > 0,
                "[segment] --earlier {} shows nothing, expected a mask with the thing white",
                options.earlier);
        prompt.earlier = answer_of(mask);
    }
    return prompt;
}

void check_options(const SegmentOptions& options) {
    const bool prompt = !options.points.empty() || !options.negatives.empty() ||
                        !options.box.empty() || !options.words.empty() || !options.earlier.empty();
    require(!options.everything || !prompt,
            "[segment] --everything asks for no thing in particular: leave out points, box, words, "
            "an earlier mask");
    require(!options.zero_shot ||
                (!options.words.empty() && !options.everything && !options.interactive &&
                 options.points.empty() && options.negatives.empty() && options.box.empty() &&
                 options.earlier.empty()),
            "[segment] --zero-shot finds what words say, and by them alone: fovea segment "
            "photo.png \"the rocket\" --zero-shot");
    require(options.zero_shot || !options.refine,
            "[segment] --refine draws anew what --zero-shot found: give both");
    require(!options.interactive ||
                (!prompt && !options.everything && options.output.empty() &&
                 options.overlay.empty() && options.cutout.empty() && options.json_file.empty()),
            "[segment] --interactive takes its prompts from standard input, one a line, and writes "
            "no files but by \"save\"");
    require(!options.interactive || !options.json,
            "[segment] --json found beside --interactive, which always answers in lines of JSON: "
            "leave it out");
    require(options.everything || options.interactive || prompt,
            "[segment] nothing asked: give a point on the thing, a box around it, words, or "
            "--everything");
}

void check_outputs(const SegmentOptions& options, bool clip, const Image& frame, bool quiet) {
    require(!clip || options.cutout.empty(),
            "[segment] --cutout is for pictures; of a clip: --overlay, -o");
    for (const auto& [name, given] : {std::pair{"--everything", options.everything},
                                      {"--interactive", options.interactive},
                                      {"--zero-shot", options.zero_shot}})
        require(!clip || !given, "[segment] {} is for pictures, {} is a clip", name, options.input);
    require(clip || options.frame == 0, "[segment] --frame {} found, but {} is a picture",
            options.frame, options.input);
    const std::vector<OutputFile> files{{"-o", options.output},
                                        {"--overlay", options.overlay},
                                        {"--cutout", options.cutout},
                                        {"--json-file", options.json_file}};
    require_distinct("segment", files);
    for (const auto& [name, path] : files) {
        if (path.empty()) continue;
        if (clip && path != options.json_file) {
            require_sides(path, frame.width, frame.height);
            if (video_format(path) == VideoFormat::frames) continue;  // the folder is made
        } else if (path != options.json_file) {
            require_png("segment", name, path);
        }
        require_output("segment", name, path, quiet);
    }
}

// Beside the input: NAME-mask and its extension.
std::string default_output(const std::string& input, bool clip, const Image& frame) {
    fs::path path(input);
    if (!path.has_filename()) path = path.parent_path();
    if (!clip) return (path.parent_path() / (path.stem().string() + "-mask.png")).string();
    if (!fs::is_regular_file(path)) {
        if (path.filename() == "." || path.filename() == "..") path = fs::canonical(path);
        return path.parent_path() /
               ((fs::is_directory(path) ? path.filename().string() : "frames") + "-mask/");
    }
    std::string extension = frame.width % 2 == 0 && frame.height % 2 == 0 ? ".mp4" : ".webp";
    if (path.extension() == ".gif" || path.extension() == ".webp") extension = path.extension();
    return (path.parent_path() / (path.stem().string() + "-mask" + extension)).string();
}

/// Of any model: what it is called by.
template <typename M>
Json settings_of(const SegmentOptions& options, const M& model, const vk::DeviceInfo& device) {
    Json json{{"command", "segment"},
              {"picture", options.input},
              {"precision", model.dtype == DType::f16 ? "fp16" : "fp32"},
              {"model", model.hash},
              {"device", device.name},
              {"driver", device.driver},
              {"version", kVersion}};
    if (!options.words.empty()) json["words"] = options.words;
    if (!options.points.empty()) json["points"] = options.points;
    if (!options.negatives.empty()) json["negatives"] = options.negatives;
    if (!options.box.empty()) json["box"] = options.box;
    if (!options.earlier.empty()) json["earlier"] = options.earlier;
    if (options.everything) json["everything"] = true;
    if (options.zero_shot) json["zero_shot"] = options.refine ? "refined" : "alone";
    return json;
}

[[noreturn]] void say_nothing_found(const SegmentOptions& options, const Host& host,
                                    const Json& json) {
    const std::string text = fmt::format("[segment] nothing found in {}", options.input);
    if (host.quiet()) throw Error(text);
    if (options.json) fmt::print("{}\n", json_text(json, 2));
    log::say("fovea: {}, nothing written\n", text);
    throw CLI::RuntimeError(kNothingFound);
}

/// What both kinds of input end with.
struct Finish {
    const SegmentOptions& options;
    const Host& host;
    Session& session;
    Clock::time_point start;
    std::vector<std::string> files;
    std::string text;

    void operator()(Json json) const {
        json["files"] = files;
        json["seconds"] = seconds_since(start);
        json["peak_device_bytes"] = session.device().peak_allocated();
        const std::string dump = json_text(json, 2) + "\n";
        if (!options.json_file.empty())
            write_file(options.json_file, std::as_bytes(std::span(dump)));
        if (host.quiet()) return;
        if (options.json) {
            fmt::print("{}", dump);
            return;
        }
        for (const auto& file : files) fmt::print("{}\n", file);
        log::say("{}{} on {}\n", text, duration_text(seconds_since(start)),
                 session.device().info().name);
    }
};

void save_picture(const SegmentOptions& options, const Host& host, Session& session,
                  const Image& shown, const std::vector<Segment>& segments, Json json,
                  Clock::time_point start) {
    const PngText text{{kSettingsName, json_text(json)}};
    json["width"] = shown.width;
    json["height"] = shown.height;
    json["segments"] = Json::array();
    if (segments.empty()) say_nothing_found(options, host, json);
    Finish finish{options, host, session, start, {}, {}};
    if (!options.output.empty()) {
        save_png(options.output, draw_masks(segments, shown.width, shown.height), text);
        finish.files.push_back(options.output);
    }
    if (!options.overlay.empty()) {
        save_png(options.overlay, draw_overlay(shown, segments), text);
        finish.files.push_back(options.overlay);
    }
    for (size_t i = 0; !options.cutout.empty() && i < segments.size(); ++i) {
        const auto path =
            options.everything
                ? fmt::format("{}-{}.png", options.cutout.substr(0, options.cutout.size() - 4),
                              i + 1)
                : options.cutout;
        save_png(path, shown, segments[i].opacity, text);
        finish.files.push_back(path);
    }
    for (const auto& segment : segments) {
        json["segments"].push_back(json_of(segment));
        finish.text += to_text(segment) + "\n";
    }
    finish(std::move(json));
}

void run_picture(const SegmentOptions& options, Host& host, Session& session, Image image,
                 const SegmentPrompt& prompt, Clock::time_point start) {
    const SegmentModel& model = session.segment_model(options.model, options.precision);
    SegmentedPicture picture(session.stream(), model, std::move(image));
    std::vector<Segment> segments;
    if (options.everything) {
        Progress progress("segment", !host.quiet());
        segments = picture.everything(
            {.grid = options.grid,
             .on_step = [&](int done, int total) { progress.update(done, total); },
             .cancel = host.cancel()});
    } else if (auto found = picture.ask(prompt)) {
        segments.push_back(std::move(*found));
    }
    save_picture(options, host, session, picture.picture(), segments,
                 settings_of(options, model, session.device().info()), start);
}

void run_zero_shot(const SegmentOptions& options, Host& host, Session& session, Image image,
                   Clock::time_point start) {
    const Model& model = session.model(options.model, options.precision);
    Refer::Result found;
    {
        Progress progress("segment", !host.quiet());
        Refer::Request request;
        request.picture = image;
        request.words = options.words;
        request.on_step = [&](int done, int total) { progress.update(done, total); };
        request.cancel = host.cancel();
        found = Refer::run(session.stream(), model, request);
    }
    std::vector<Segment> segments;
    if (options.refine) {
        const auto& segmenter = session.segment_model(options.model, options.precision);
        SegmentedPicture picture(session.stream(), segmenter, image);
        if (auto refined = picture.ask(refer_prompt(found, ReferPrompt::point)))
            segments.push_back(std::move(*refined));
    } else if (found.mask.count() > 0) {
        segments.push_back(to_segment(found));
    }
    save_picture(options, host, session, image, segments,
                 settings_of(options, model, session.device().info()), start);
}

void run_clip(const SegmentOptions& options, Host& host, Session& session,
              const SegmentModel& model, const Clip& clip, const SegmentPrompt& prompt,
              Clock::time_point start) {
    std::vector<std::optional<Segment>> found;
    {
        Progress progress("segment", !host.quiet());
        found =
            SegmentClip::run(session.stream(), model, clip.frames,
                             {.prompt = prompt,
                              .frame = options.frame,
                              .on_step = [&](int done, int total) { progress.update(done, total); },
                              .cancel = host.cancel()});
    }
    const auto seen = std::count_if(found.begin(), found.end(),
                                    [](const auto& segment) { return segment.has_value(); });
    Json json = settings_of(options, model, session.device().info());
    json["frame"] = options.frame;
    Clip masks{.frames = {}, .fps = clip.fps, .text = json_text(json)}, overlays = masks;
    json["width"] = clip.frames[0].width;
    json["height"] = clip.frames[0].height;
    json["frames"] = Json::array();
    for (size_t i = 0; i < found.size(); ++i) {
        std::vector<Segment> segments;
        if (found[i]) segments.push_back(std::move(*found[i]));
        const Image& frame = clip.frames[i];
        json["frames"].push_back(segments.empty() ? Json() : json_of(segments[0]));
        if (!options.output.empty())
            masks.frames.push_back(draw_masks(segments, frame.width, frame.height));
        if (!options.overlay.empty()) overlays.frames.push_back(draw_overlay(frame, segments));
    }
    if (seen == 0) say_nothing_found(options, host, json);
    Finish finish{options, host, session, start, {}, {}};
    for (const auto& [path, made] :
         {std::pair{options.output, &masks}, {options.overlay, &overlays}})
        if (!path.empty()) {
            save_video(path, *made);
            finish.files.push_back(path);
        }
    finish.text = fmt::format("seen in {} of {} frames\n", seen, found.size());
    finish(std::move(json));
}

void run(SegmentOptions options, Host& host) {
    const auto start = Clock::now();
    require(!options.input.empty(),
            "[segment] no picture; try fovea segment photo.png --point 120,80");
    require(fs::exists(options.input) || options.input.find('%') != std::string::npos,
            "[segment] there is no {}", options.input);
    check_options(options);
    const SegmentPrompt prompt = prompt_of(options);
    Clip frames;
    bool clip = is_clip(options.input);
    if (clip)
        frames = load_video(options.input);
    else
        frames.frames.push_back(load_image(options.input));
    const Image& first = frames.frames.at(0);
    // A still WebP or GIF is a picture, unless a clip shall come of it.
    if (clip && frames.frames.size() == 1 && fs::is_regular_file(options.input))
        clip = (!options.output.empty() && !options.output.ends_with(".png")) ||
               (!options.overlay.empty() && !options.overlay.ends_with(".png"));
    if (options.output.empty() && options.overlay.empty() && options.cutout.empty() &&
        options.json_file.empty() && !options.json && !options.interactive)
        options.output = default_output(options.input, clip, first);
    check_outputs(options, clip, first, host.quiet());
    if (!options.everything && !options.interactive) validate(prompt, first.width, first.height);
    require(!prompt.earlier ||
                (prompt.earlier->columns == first.width && prompt.earlier->rows == first.height),
            "[segment] --earlier {} of {}×{} found, expected {}×{} as {}", options.earlier,
            prompt.earlier ? prompt.earlier->columns : 0, prompt.earlier ? prompt.earlier->rows : 0,
            first.width, first.height, options.input);

    Session& session = host.open(options.device);
    if (options.zero_shot)
        return run_zero_shot(options, host, session, std::move(frames.frames[0]), start);
    if (!options.interactive && !clip)
        return run_picture(options, host, session, std::move(frames.frames[0]), prompt, start);
    const SegmentModel& model = session.segment_model(options.model, options.precision);
    if (options.interactive)
        answer_prompts(session.stream(), model, options.input, std::move(frames.frames[0]), start);
    else
        run_clip(options, host, session, model, frames, prompt, start);
}

}  // namespace

void add_segment(CLI::App& app, const std::shared_ptr<Host>& host) {
    auto* command =
        app.add_subcommand("segment", "Cut things out of pictures and clips: click, box or say it");
    auto options = std::make_shared<SegmentOptions>();
    command->footer(
        "Examples:\n"
        "  fovea segment photo.png --point 120,80                 photo-mask.png: white is the "
        "thing\n"
        "  fovea segment photo.png --box 40,40,200,200 --cutout thing.png      what is around is "
        "transparent\n"
        "  fovea segment photo.png \"the rocket\" --overlay seen.png\n"
        "  fovea segment photo.png \"the rocket\" --zero-shot --refine          found by the "
        "picture model\n"
        "  fovea segment photo.png --point 120,80 --negative 30,40             this, but not that\n"
        "  fovea segment photo.png --earlier photo-mask.png --negative 30,40   that mask without "
        "this\n"
        "  fovea segment photo.png --everything --overlay all.png --json > all.json\n"
        "  fovea segment clip.mp4 --point 120,80 --frame 10 --overlay followed.mp4\n"
        "  printf 'point 120,80\\ncorrect negative 30,40\\nwords the cat\\nquit\\n' | fovea "
        "segment "
        "photo.png --interactive\n"
        "\n"
        "--json and --json-file hold score, area, box and COCO's run-length encoding of every "
        "thing (of\n"
        "a clip: of every frame). --interactive reads the picture once and then prompts, one a "
        "line:\n"
        "point X,Y; negative X,Y; box L,T,R,B; words WORDS; several of these together; search "
        "WORDS, which\n"
        "finds small things in large pictures, as the command does, and first reads their parts "
        "for "
        "seconds;\n"
        "correct and more of these, to better the last answer; save FILE.png; quit. It answers in "
        "lines of JSON.\n"
        "--zero-shot finds words by the model that draws pictures, which was never taught to cut "
        "things out:\n"
        "for words that the segmentation model misses. It is slower, its edges are coarser, and it "
        "takes for\n"
        "granted that the thing is there. With --refine the segmentation model is asked about the "
        "place that\n"
        "was found, and draws one thing.\n"
        "Exit code 3: nothing was found, and nothing written. docs/segmentation.md");
    command->add_option("picture", options->input,
                        "PNG or JPEG, or a clip: MP4, WebP, GIF, a folder of frame-0001.png and "
                        "on, or their pattern as in frame-%04d.png");
    command->add_option("words", options->words, "What the thing is called");
    command
        ->add_option("--point", options->points,
                     "X,Y in pixels from the upper left: on the thing; may be repeated")
        ->allow_extra_args(false);
    command->add_option("--negative", options->negatives, "X,Y beside the thing; may be repeated")
        ->allow_extra_args(false);
    command->add_option("--box", options->box, "LEFT,TOP,RIGHT,BOTTOM around the thing");
    command->add_option("--earlier", options->earlier,
                        "MASK.png, as written before: made better by the points, box or words");
    auto* everything =
        command->add_flag("--everything", options->everything, "All things in the picture");
    command->add_flag("--zero-shot", options->zero_shot,
                      "Find the words by the picture model alone, without the segmentation model");
    command->add_flag("--refine", options->refine,
                      "With --zero-shot: the segmentation model draws what was found");
    command->add_option("--grid", options->grid, "Points along a side for --everything")
        ->check(CLI::Range(1, 64))
        ->needs(everything)
        ->capture_default_str();
    command
        ->add_option("--frame", options->frame,
                     "Of a clip: the frame, from 0, that the prompt is about")
        ->check(CLI::Range(0, kMaxClipFrames - 1))
        ->capture_default_str();
    command->add_flag("--interactive", options->interactive,
                      "Prompts from standard input, answers as lines of JSON");
    command->add_option(
        "-o,--output,--mask", options->output,
        "The mask, a .png file, or of a clip a clip; default, where nothing else is "
        "asked for: NAME-mask beside the input");
    command->add_option("--overlay", options->overlay, "The thing in colour, all else darker");
    command->add_option("--cutout", options->cutout,
                        "The picture, transparent around the thing (.png); of several NAME-1.png, "
                        "NAME-2.png …");
    command->add_flag("--json", options->json, "Results as JSON on standard output");
    command->add_option("--json-file", options->json_file, "The same to a file");
    command->add_option("--device", options->device, "Index or name of a device (fovea info)");
    command->add_option("--precision", options->precision, "auto, fp16 or fp32")
        ->capture_default_str();
    command->add_option("--model", options->model, "Model folder");
    command->callback([options, host] { run(*options, *host); });
}

}  // namespace fovea::apps
