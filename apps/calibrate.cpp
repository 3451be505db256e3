#include "pipelines/calibrate.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>

#include "apps/app.h"
#include "apps/generation.h"
#include "backend/error.h"
#include "pipelines/text_to_video.h"

namespace fovea::apps {
namespace {

struct CalibrateOptions {
    std::vector<std::string> prompts;
    std::string output, picture, model, device, precision = "auto";
    double density = 0.3;
    int frames = 16, size = 128, steps = 24, dense_steps = 0;
    uint32_t block = 0;
    uint64_t seed = 0;
    float cfg = 3;
    std::vector<float> ranges;
};

/// Of the masks of one layer and head, in [0, 1].
double density_of(const Calibration& c, size_t range, size_t head) {
    const size_t size = size_t{c.settings.blocks()} * c.settings.blocks();
    const auto begin =
        c.masks.begin() + static_cast<std::ptrdiff_t>((range * c.orders.size() + head) * size);
    return static_cast<double>(std::count(begin, begin + static_cast<std::ptrdiff_t>(size), 1)) /
           static_cast<double>(size);
}

void print(const Calibration& c) {
    const MassSettings& s = c.settings;
    fmt::print("order of axes and share of blocks kept, head by head, from step range to range\n");
    for (size_t i = 0; i < c.orders.size(); ++i) {
        std::string shares;
        for (size_t r = 0; r < s.range_ends.size(); ++r)
            shares += fmt::format(" {:5.1f}", 100 * density_of(c, r, i));
        fmt::print("layer {:2} head {:2}  {} {} %\n", i / static_cast<size_t>(s.heads),
                   i % static_cast<size_t>(s.heads), name_of(c.orders[i]), shares);
    }
}

/// Masks: a row a layer, a column a head, ranges side by side; blocks kept are dark, in a colour
/// for each order.
Image draw(const Calibration& c) {
    constexpr float kColors[][3] = {{0.13f, 0.31f, 0.52f}, {0.75f, 0.28f, 0.20f},
                                    {0.20f, 0.50f, 0.30f}, {0.55f, 0.35f, 0.60f},
                                    {0.80f, 0.55f, 0.10f}, {0.25f, 0.55f, 0.60f}};
    const MassSettings& s = c.settings;
    const auto n = static_cast<int>(s.blocks());
    const size_t size = static_cast<size_t>(n) * static_cast<size_t>(n);
    std::vector<Image> cells;
    for (int64_t layer = 0; layer < s.layers; ++layer)
        for (size_t r = 0; r < s.range_ends.size(); ++r)
            for (int64_t head = 0; head < s.heads; ++head) {
                const auto i = static_cast<size_t>(layer * s.heads + head);
                const auto& color = kColors[static_cast<size_t>(c.orders[i])];
                Image cell{.width = n, .height = n, .rgb = {}};
                for (size_t at = 0; at < size; ++at)
                    for (const float channel : color)
                        cell.rgb.push_back(c.masks[(r * c.orders.size() + i) * size + at] ? channel
                                                                                          : 0.93f);
                cells.push_back(std::move(cell));
            }
    return tile_images(cells, static_cast<int>(s.range_ends.size()) * static_cast<int>(s.heads));
}

void run(const CalibrateOptions& o) {
    for (const std::string& prompt : o.prompts)
        require(
            !prompt.empty(),
            "[calibrate] an empty prompt found, expected words for each clip, as in \"a red fox "
            "moving left\"");
    require(!o.output.empty(), "[calibrate] --output is empty, expected the name of a file");
    require_png("calibrate", "--draw", o.picture);
    require_distinct("calibrate", {{"--output", o.output}, {"--draw", o.picture}});
    require_output("calibrate", "--output", o.output);
    require_output("calibrate", "--draw", o.picture);
    require(o.dense_steps < std::max(o.steps, 1),
            "[calibrate] --dense-steps {} found beside --steps {}, expected fewer: all would be "
            "dense",
            o.dense_steps, o.steps);
    vk::Device device(o.device);
    vk::Stream stream(device);
    const Model model =
        Model::load(stream, find_model(o.model), choose_precision(device.info(), o.precision));
    CalibrationRequest request;
    request.prompts = o.prompts;
    request.seed = o.seed;
    request.frames = o.frames;
    request.width = request.height = o.size;
    request.steps = o.steps;
    request.cfg = o.cfg;
    request.block = o.block;
    request.range_ends = o.ranges;
    request.cancel = &interrupted();
    // Masks of a clip that fovea video would refuse serve nobody.
    TextToVideo::Request clip;
    static_cast<DenoiseRequest&>(clip) = request;
    clip.frames = o.frames;
    clip.width = clip.height = o.size;
    TextToVideo::require_fits(stream, model, clip);
    for (const std::string& prompt : o.prompts) report_words(model, prompt);
    std::unique_ptr<Calibrator> calibrator;
    {
        Progress progress("calibrating");
        request.on_step = [&](int done, int total) { progress.update(done, total); };
        calibrator = measure_attention(stream, model, request);
    }
    const float dense = static_cast<float>(o.dense_steps) / static_cast<float>(o.steps);
    Calibration c = calibrator->choose(o.density, dense);
    c.notes = {{"prompts", fmt::format("{}", fmt::join(o.prompts, " | "))},
               {"model", model.hash},
               {"seed", std::to_string(o.seed)},
               {"steps", std::to_string(o.steps)},
               {"density", fmt::format("{}", o.density)}};
    save_calibration(o.output, c);
    if (!o.picture.empty()) save_png(o.picture, draw(c));
    print(c);
    fmt::print("{:.1f} % of the blocks of {} tokens kept, which hold {:.1f} % of attention\n{}\n",
               100 * c.density(), c.settings.block, 100 * calibrator->kept_mass(c), o.output);
}

}  // namespace

void add_calibrate(CLI::App& app) {
    auto* command = app.add_subcommand(
        "calibrate", "Measure where a model's clips attend, for --pattern reordered");
    auto o = std::make_shared<CalibrateOptions>();
    command->add_option("prompts", o->prompts, "A clip each; one or two are enough")->required();
    command->add_option("-o,--output", o->output, "The file of orders and masks")->required();
    command->add_option("--density", o->density, "Share of blocks to keep, mean of all")
        ->check(CLI::Range(0.001, 1.0))
        ->capture_default_str();
    command
        ->add_option("--dense-steps", o->dense_steps,
                     "First steps that will run densely: they take nothing of the density")
        ->check(CLI::Range(0, 999))
        ->capture_default_str();
    command
        ->add_option("--ranges", o->ranges,
                     "Where ranges of steps with masks of their own end, as shares (default: "
                     "0.1,0.2,0.3,0.4,0.5,1)")
        ->delimiter(',');
    command->add_option("--block", o->block, "Tokens a block (default: 16, 32 or 64, by size)")
        ->check(refuse_minus);
    command->add_option("--frames", o->frames, "8 to 24")->capture_default_str();
    command->add_option("--size", o->size, "Pixels a side")->capture_default_str();
    command->add_option("--steps", o->steps)->capture_default_str();
    command->add_option("--cfg", o->cfg, "Guidance")->capture_default_str();
    command->add_option("--seed", o->seed, "Of the first clip")
        ->check(refuse_minus)
        ->capture_default_str();
    command->add_option(
        "--draw", o->picture,
        "Write the masks as PNG: a row a layer, a column a head, a group a range, a "
        "colour an order (blue FHW, red FWH, green HWF, violet HFW, yellow WHF, "
        "teal WFH)");
    command->add_option("--model", o->model, "Model folder");
    command->add_option("--device", o->device, "Device index or part of its name");
    command->add_option("--precision", o->precision, "auto (fp16 on GPUs), fp16 or fp32")
        ->capture_default_str();
    command->footer(
        "Example:\n"
        "  fovea calibrate \"a red fox moving left\" -o fox.safetensors --density 0.3\n"
        "  fovea video \"a dog jumping\" --pattern reordered --calibration fox.safetensors");
    command->callback([o] { run(*o); });
}

}  // namespace fovea::apps
