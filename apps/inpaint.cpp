#include "pipelines/inpaint.h"

#include <fmt/format.h>

#include <map>
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

struct InpaintOptions : GenerationOptions {
    std::string picture, mask, painta = "off", save_mask;
    std::vector<std::string> boxes;
    int count = 1, window = 256;
};

Box parse_box(const std::string& text) {
    Box box;
    int end = 0;
    const bool good = std::sscanf(text.c_str(), "%d,%d,%d,%d%n", &box.left, &box.top, &box.right,
                                  &box.bottom, &end) == 4 &&
                      end == static_cast<int>(text.size());
    require(
        good,
        "[inpaint] --box {} found, expected LEFT,TOP,RIGHT,BOTTOM in pixels as in 40,40,200,200",
        text);
    require(box.right > box.left && box.bottom > box.top,
            "[inpaint] --box {} is empty, expected LEFT < RIGHT and TOP < BOTTOM", text);
    return box;
}

// Of --mask and --box together, or of what is transparent.
Mask hole_of(const InpaintOptions& options, const Image& picture) {
    Mask hole;
    if (!options.mask.empty()) {
        hole = mask_of(load_image(options.mask));
        const auto opacity = load_opacity(options.mask);
        for (size_t i = 0; i < opacity.size(); ++i)
            if (opacity[i] < 0.5f) hole.hole[i] = 0;  // of a layer of white strokes
        require(hole.width == picture.width && hole.height == picture.height,
                "[inpaint] {} has {}×{} pixels, {} has {}×{}: the mask must have the picture's "
                "size; resize it, or say where with --box",
                options.mask, hole.width, hole.height, options.picture, picture.width,
                picture.height);
        require(hole.count() > 0,
                "[inpaint] {} has no white pixel: nothing to fill. White is filled, black stays",
                options.mask);
    } else if (options.boxes.empty()) {
        const auto opacity = load_opacity(options.picture);
        hole = mask_of(opacity, picture.width, picture.height);
        require(hole.count() > 0,
                "[inpaint] {} has no transparent pixels: say what to fill with --mask MASK.png "
                "(white is filled) or --box LEFT,TOP,RIGHT,BOTTOM",
                options.picture);
    } else {
        hole = mask_of(Box{}, picture.width, picture.height);
    }
    for (const auto& text : options.boxes) {
        const Box box = parse_box(text);
        require(Box{0, 0, picture.width, picture.height}.contains(box),
                "[inpaint] --box {} reaches beyond the picture of {}×{}", text, picture.width,
                picture.height);
        const Mask more = mask_of(box, picture.width, picture.height);
        for (size_t i = 0; i < hole.hole.size(); ++i) hole.hole[i] |= more.hole[i];
    }
    return hole;
}

void dry_run(vk::Stream& stream, const Model& model, const InpaintOptions& options,
             const Inpaint::Request& request) {
    const Image& picture = request.jobs[0].picture;
    const auto tiles = Inpaint::plan(model, request.jobs[0].hole, request.window);
    Estimate all{.what = fmt::format("{}×{}, {} tile(s), {} steps, {} picture(s)", picture.width,
                                     picture.height, tiles.size(), request.steps, options.count),
                 .seconds = 0,
                 .step_seconds = 0,
                 .decode_seconds = 0,
                 .passes = 0,
                 .device_bytes = 0};
    std::map<std::pair<int, int>, TextToImage::Probe> probes;
    for (const Tile& tile : tiles) {
        const auto [found, is_new] = probes.try_emplace({tile.width, tile.height});
        TextToImage::Probe& probe = found->second;
        if (is_new) {
            TextToImage::Request one;
            static_cast<DenoiseRequest&>(one) = request;
            one.prompt = options.prompt;
            one.width = tile.width;
            one.height = tile.height;
            one.seeds.assign(static_cast<size_t>(options.count), options.seed);
            probe = TextToImage::probe(stream, model, one);
        }
        all.seconds += probe.total(request.steps);
        all.step_seconds += probe.step_seconds;
        all.decode_seconds += probe.decode_seconds;
        all.passes = probe.passes;
        all.device_bytes = std::max(all.device_bytes, probe.peak_bytes);
    }
    report(all, stream.device().info(), options.json);
}

void take_settings(const CLI::App& command, InpaintOptions& o) {
    const auto text = read_png_text(o.from);
    const auto found = text.find(kSettingsName);
    const Settings settings("inpaint", command, o.from, found == text.end() ? "" : found->second);
    settings.take(o);
    settings.take("picture", "picture", o.picture);
    require(!o.picture.empty(),
            "[inpaint] the settings in {} name no picture that was filled: it was not made by "
            "fovea inpaint; name the picture as well, and --mask or --box",
            o.from);
    if (command.count("--mask") == 0 && o.boxes.empty()) {
        settings.take("--mask", "mask", o.mask);
        settings.take("--box", "boxes", o.boxes);
    }
    settings.take("--painta", "painta", o.painta);
    settings.take("--window", "window", o.window);
}

std::string seam_text(const Seam& seam) {
    return fmt::format("{:.1f} of 255 across the edge, {:.1f} beside it", seam.across, seam.nearby);
}

void run(const CLI::App& command, InpaintOptions options, Host& host) {
    const auto start = std::chrono::steady_clock::now();
    if (!options.from.empty()) take_settings(command, options);
    require(!options.picture.empty() && !options.prompt.empty(),
            "[inpaint] no {}; try fovea inpaint room.png \"a cat\" --box 40,40,200,200",
            options.picture.empty() ? "picture" : "prompt");
    require_png("inpaint", "--save-mask", options.save_mask);
    const Image picture = load_image(options.picture);
    const Mask hole = hole_of(options, picture);
    if (!options.save_mask.empty()) save_png(options.save_mask, picture_of(hole));

    Inpaint::Request request;
    fill(request, options);
    request.painta = options.painta == "on";
    request.window = options.window;
    for (int i = 0; i < options.count; ++i)
        request.jobs.push_back(
            {picture, hole, options.prompt, options.seed + static_cast<uint64_t>(i)});
    const auto paths = options.dry_run
                           ? std::vector<fs::path>{}
                           : output_paths("inpaint", options.output, options.seed, options.count);
    if (!paths.empty() && !host.quiet()) require_writable(paths[0]);

    request.cancel = host.cancel();
    validate(request, "inpaint");
    Session& session = host.open(options.device);
    vk::Device& device = session.device();
    vk::Stream& stream = session.stream();
    if (options.profile) stream.profile(true);
    const Model& model = session.model(options.model, options.precision);
    report_words(model, options.prompt);
    if (options.dry_run) return dry_run(stream, model, options, request);

    double first_step = 0;
    std::vector<Inpaint::Result> results;
    const fs::path preview_path = fs::path(paths[0]).replace_extension(".preview.png");
    const PreviewFile until_done(options.preview > 0 ? preview_path : "");
    {
        Progress progress("inpaint", !host.quiet());
        request.on_step = [&](int done, int total) {
            if (done == 1) first_step = seconds_since(start);
            progress.update(done, total);
        };
        if (options.preview > 0)
            request.on_preview = [&](const std::vector<Image>& tiles) {
                save_png(preview_path, tile_images(tiles, static_cast<int>(tiles.size())));
            };
        results = Inpaint::run(stream, model, request);
    }
    const auto settings_of = [&](size_t i) {
        Json json = settings(options, request, model, device.info(), request.jobs[i].seed,
                             picture.width, picture.height);
        json["picture"] = options.picture;
        if (!options.mask.empty()) json["mask"] = options.mask;
        if (!options.boxes.empty()) json["boxes"] = options.boxes;
        json["painta"] = options.painta;
        json["window"] = options.window;
        json["seam"] = {{"across", results[i].seam.across}, {"nearby", results[i].seam.nearby}};
        return json;
    };
    for (size_t i = 0; i < results.size(); ++i)
        save_png(paths[i], results[i].picture, {{kSettingsName, settings_of(i).dump()}});
    if (options.profile) finish_profile(stream, paths[0]);

    if (host.quiet()) return;
    const double share = static_cast<double>(hole.count()) / static_cast<double>(hole.hole.size());
    if (options.json) {
        auto list = Json::array();
        for (size_t i = 0; i < paths.size(); ++i) {
            auto entry = settings_of(i);
            entry["file"] = paths[i].string();
            list.push_back(std::move(entry));
        }
        fmt::print("{}\n", Json{{"pictures", list},
                                {"filled", share},
                                {"tiles", results[0].tiles},
                                {"seconds", seconds_since(start)},
                                {"first_step_seconds", first_step},
                                {"peak_device_bytes", device.peak_allocated()}}
                               .dump(2));
        return;
    }
    for (const auto& path : paths) fmt::print("{}\n", path.string());
    for (size_t i = 0; i < paths.size(); ++i)
        log::say("{}gradients: {}\n",
                 paths.size() > 1 ? fmt::format("seed {}: ", request.jobs[i].seed) : "",
                 seam_text(results[i].seam));
    log::say("{:.0f} % of the picture filled in {} tile(s); {} on {}\n", 100 * share,
             results[0].tiles, duration_text(seconds_since(start)), device.info().name);
}

}  // namespace

void add_inpaint(CLI::App& app, const std::shared_ptr<Host>& host) {
    auto* command = app.add_subcommand("inpaint", "Fill holes of a picture by a text");
    auto options = std::make_shared<InpaintOptions>();
    command->footer(
        "Examples:\n"
        "  fovea inpaint room.png \"a cat on a blue background\" --mask hole.png    white is "
        "filled\n"
        "  fovea inpaint room.png \"a cat on a blue background\" --box 40,40,200,200\n"
        "  fovea inpaint cutout.png \"a cat\"                       what is transparent is filled\n"
        "  fovea inpaint room.png \"a cat\" --box 40,40,200,200 --count 4 -o cats/\n"
        "  fovea inpaint --from inpainted.png --seed 8 -o other.png\n"
        "\n"
        "The text says what is to be seen around the hole as well as in it. Pixels outside stay as "
        "they\n"
        "are. Large pictures are worked on in tiles around their holes. docs/inpainting.md\n\n" +
        guidance_footer());
    options->output = "inpainted.png";
    command->add_option("picture", options->picture, "PNG or JPEG")->check(CLI::ExistingFile);
    command->add_option("prompt", options->prompt, "What it shows once filled");
    command
        ->add_option("--mask", options->mask,
                     "Picture of the same size: white is filled, black stays; default: what is "
                     "transparent")
        ->check(CLI::ExistingFile);
    command
        ->add_option("--box", options->boxes,
                     "LEFT,TOP,RIGHT,BOTTOM in pixels: filled too; may be repeated")
        ->allow_extra_args(false);
    command->add_option("--save-mask", options->save_mask,
                        "Write what will be filled to this .png file");
    command->add_option("-o,--output", options->output, "A .png file, or a folder")
        ->capture_default_str();
    command->add_option("--count", options->count, "Pictures, with seeds SEED, SEED+1, …")
        ->check(CLI::Range(1, 256))
        ->capture_default_str();
    command
        ->add_option("--painta", options->painta,
                     "on: the hole looks at what is around only as far as the words do")
        ->check(CLI::IsMember({"on", "off"}))
        ->capture_default_str();
    command
        ->add_option("--window", options->window,
                     "Longest side drawn at once, a multiple of 16 from 256 to 512; larger holes "
                     "are drawn smaller and enlarged. Far above 256 it shows fewer or several "
                     "objects")
        ->capture_default_str();
    add_generation_options(*command, *options);
    command->callback([command, options, host] { run(*command, *options, *host); });
}

}  // namespace fovea::apps
