#include <fmt/format.h>

#include <memory>

#include "apps/generation.h"
#include "apps/session.h"
#include "backend/error.h"
#include "backend/log.h"
#include "pipelines/text_to_image.h"
#include "vision/file.h"

namespace fovea::apps {
namespace {

namespace fs = std::filesystem;

struct GenerateOptions : GenerationOptions {
    int count = 1;
    std::vector<std::string> boxes, subjects;
};

void dry_run(vk::Stream& stream, const Model& model, const GenerateOptions& options,
             const TextToImage::Request& request) {
    const auto probe = TextToImage::probe(stream, model, request);
    report({.what = fmt::format("{}×{}, {} steps, {} picture(s)", request.width, request.height,
                                request.steps, request.seeds.size()),
            .seconds = probe.total(request.steps),
            .step_seconds = probe.step_seconds,
            .decode_seconds = probe.decode_seconds,
            .passes = probe.passes,
            .device_bytes = probe.peak_bytes},
           stream.device().info(), options.json);
}

void run(const CLI::App& command, GenerateOptions options, Host& host) {
    const auto start = std::chrono::steady_clock::now();
    if (!options.from.empty()) {
        const auto text = read_png_text(options.from);
        const auto found = text.find(kSettingsName);
        const Settings settings("generate", command, options.from,
                                found == text.end() ? "" : found->second);
        settings.take(options);
        settings.take("--box", "boxes", options.boxes);
        settings.take("--subject", "subjects", options.subjects);
    }
    require(!options.prompt.empty(), "[generate] no prompt; try fovea generate \"a red apple\"");

    TextToImage::Request request;
    fill(request, options);
    request.pattern = options.pattern;
    parse_size("generate", options.size, request.width, request.height);
    for (const auto& box : options.boxes) request.boxes.push_back(parse_box(box));
    for (const auto& subject : options.subjects) request.subjects.push_back(load_subject(subject));
    request.seeds.clear();
    for (int i = 0; i < options.count; ++i)
        request.seeds.push_back(options.seed + static_cast<uint64_t>(i));
    TextToImage::validate(request);
    const auto paths = options.dry_run
                           ? std::vector<fs::path>{}
                           : output_paths("generate", options.output, options.seed, options.count);
    if (!paths.empty() && !host.quiet()) require_writable(paths[0]);

    const auto settings_of = [options, request](Session& session, uint64_t seed) {
        Json json = settings(options, request, session.model(options.model, options.precision),
                             session.device().info(), seed, request.width, request.height);
        if (!options.boxes.empty()) json["boxes"] = options.boxes;
        if (!options.subjects.empty()) json["subjects"] = options.subjects;
        return json;
    };
    if (host.take({.request = request,
                   .model = options.model,
                   .precision = options.precision,
                   .settings = [settings_of, seed = options.seed](Session& session) {
                       return settings_of(session, seed);
                   }}))
        return;
    Session& session = host.open(options.device);
    vk::Device& device = session.device();
    vk::Stream& stream = session.stream();
    if (options.profile) stream.profile(true);
    const Model& model = session.model(options.model, options.precision);
    report_words(model, options.prompt);
    if (options.boxes.empty())
        if (const auto parted = parted_prompt(find_model(options.model), options.prompt);
            !parted.empty())
            log::warn(
                "two things joined by \"and\" often become one: say how they stand, as in \"{}\", "
                "or give each a --box",
                parted);
    if (options.dry_run) return dry_run(stream, model, options, request);

    double first_step = 0;
    std::vector<Image> images;
    const fs::path preview_path = fs::path(paths[0]).replace_extension(".preview.png");
    const PreviewFile until_done(options.preview > 0 ? preview_path : "");
    {
        Progress progress("generate");
        request.on_step = [&](int done, int total) {
            if (done == 1) first_step = seconds_since(start);
            progress.update(done, total);
        };
        request.on_preview = [&](int, const std::vector<Image>& previews) {
            save_png(preview_path, tile_images(previews, static_cast<int>(previews.size())));
        };
        images = TextToImage::run(stream, model, request);
    }
    for (size_t i = 0; i < images.size(); ++i)
        save_png(paths[i], images[i],
                 {{kSettingsName, settings_of(session, request.seeds[i]).dump()}});
    if (options.profile) finish_profile(stream, paths[0]);

    const double seconds = seconds_since(start);
    if (options.json) {
        auto list = Json::array();
        for (size_t i = 0; i < paths.size(); ++i) {
            auto entry = settings_of(session, request.seeds[i]);
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
    log::say("{} in {} on {}\n",
             paths.size() == 1 ? "done" : fmt::format("{} pictures", paths.size()),
             duration_text(seconds), device.info().name);
}

}  // namespace

void add_generate(CLI::App& app, const std::shared_ptr<Host>& host) {
    auto* command = app.add_subcommand("generate", "Make a picture from a text");
    auto options = std::make_shared<GenerateOptions>();
    command->footer(
        "Examples:\n"
        "  fovea generate \"a red apple on a blue background\"\n"
        "  fovea generate \"a rocket and a planet on a black background, 3d style\" -o "
        "space.png --seed 7\n"
        "  fovea generate \"a cat, blob style\" --count 8 -o cats/\n"
        "  fovea generate --from space.png --steps 40 -o better.png\n"
        "  fovea generate \"an apple and a banana\" --box apple=20,30,120,140 --box "
        "banana=130,120,240,230\n"
        "  fovea generate \"a pig on a green background\" --box pig=20,80,180,220 --subject "
        "pig=cutout.png\n"
        "  fovea generate \"a castle\" --guidance cfg:4,pag:2@blocks=3-5,steps=0.0-0.7\n\n" +
        guidance_footer());
    options->output = "fovea.png";
    options->size = "256x256";
    command->add_option(
        "prompt", options->prompt,
        "What to draw: objects, background, style; of two, how they stand: left of, right "
        "of, above or below");
    command->add_option("-o,--output", options->output, "A .png file, or a folder")
        ->capture_default_str();
    command
        ->add_option("--size", options->size,
                     "WIDTHxHEIGHT, multiples of 16 from 128 to 512; trained at 256x256")
        ->capture_default_str();
    command->add_option("--count", options->count, "Pictures, with seeds SEED, SEED+1, …")
        ->check(CLI::Range(1, 256))
        ->capture_default_str();
    command
        ->add_option(
            "--box", options->boxes,
            "NAME=X0,Y0,X1,Y1: where a thing of the prompt comes, in pixels of the picture "
            "from its upper left; may be repeated")
        ->allow_extra_args(false);
    command
        ->add_option("--subject", options->subjects,
                     "NAME=PICTURE.png: what the thing of a --box looks like; around it the "
                     "picture is transparent, as fovea segment --cutout leaves it. May be repeated")
        ->allow_extra_args(false);
    command->add_option("--pattern", options->pattern,
                        "Self-attention pattern of every layer, as in dense or neighborhood:7x7; "
                        "default: the model's");
    add_generation_options(*command, *options);
    command->callback([command, options, host] { run(*command, *options, *host); });
}

}  // namespace fovea::apps
