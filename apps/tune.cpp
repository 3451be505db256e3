#include "apps/bench/tune.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "apps/app.h"
#include "backend/error.h"

namespace fovea::apps {
namespace {

struct TuneOptions {
    std::vector<std::string> what, shapes, patterns;
    std::string device, path = "automatic", scores = "stored";
};

void tune(const TuneOptions& o) {
    vk::Device device(o.device);
    const bool cpu = device.info().type == vk::DeviceType::cpu;
    const auto wants = [&](const char* name) {
        return o.what.empty() || std::find(o.what.begin(), o.what.end(), name) != o.what.end();
    };
    bench::TuneShapes shapes{.patterns = o.patterns, .scores = parse_scores(o.scores)};
    if (wants("attention")) shapes.attention = bench::attention_shapes(o.shapes, cpu);
    if (wants("gemm")) shapes.gemm = bench::gemm_shapes(o.shapes, cpu);
    if (wants("conv")) shapes.conv = bench::conv_shapes(o.shapes, cpu);
    require(!shapes.attention.empty() || !shapes.gemm.empty() || !shapes.conv.empty(),
            "[tune] none of these shapes is one of attention, gemm or conv as asked for");
    fmt::print("{}, {}\n", device.info().name, device.info().driver);
    bench::tune_shapes(device, shapes, parse_path(o.path));
}

}  // namespace

void add_tune(CLI::App& app) {
    auto* command = app.add_subcommand(
        "tune", "Times the tiles of attention, gemm and conv on matrix units; keeps the fastest");
    auto o = std::make_shared<TuneOptions>();
    command->add_option("what", o->what, "attention, gemm, conv; several may be (default: all)")
        ->check(CLI::IsMember({"attention", "gemm", "conv"}));
    command
        ->add_option("--shapes", o->shapes,
                     "Sets of shapes, see below, HEADS:GRID:HEAD_DIM for attention or MxKxN for "
                     "gemm (default: small on CPUs, all others on GPUs)")
        ->delimiter(',');
    command
        ->add_option("--patterns", o->patterns,
                     "Attention patterns as of fovea bench (default: those of each set)")
        ->delimiter(',');
    command->add_option("--path", o->path, "automatic (the fastest), khr or nv2")
        ->capture_default_str();
    command->add_option("--scores", o->scores, "Of attention: stored or int8")
        ->check(CLI::IsMember({"stored", "int8"}))
        ->capture_default_str();
    command->add_option("--device", o->device, "Device index or part of its name (see fovea info)");
    command->footer(fmt::format(
        "What is chosen is kept by device, driver, op and class of shapes in a file of the cache\n"
        "folder, and every later run takes it; --no-tune, or FOVEA_TUNE=off, takes the rules\n"
        "alone. Nothing is timed unasked: FOVEA_TUNE=on times at the first use of a class.\n\n"
        "Shapes:\n{}\n"
        "Examples:\n"
        "  fovea tune\n"
        "  fovea tune attention --shapes flux,24:30x48x80:128 --patterns dense",
        bench::shapes_help()));
    command->callback([o] { tune(*o); });
}

}  // namespace fovea::apps
