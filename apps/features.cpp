#include "pipelines/features.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "apps/generation.h"
#include "apps/session.h"
#include "backend/error.h"

namespace fovea::apps {
namespace {

struct FeatureOptions {
    std::vector<std::string> pictures;
    std::string output, drawing, device, model, precision = "auto";
    bool json = false;
};

void run(const FeatureOptions& o) {
    require(!o.output.empty() || !o.drawing.empty(),
            "[features] no file to write, expected -o FEATURES.safetensors or --picture PCA.png");
    require_png("features", "--picture", o.drawing);
    require_distinct("features", {{"-o", o.output}, {"--picture", o.drawing}});
    require_output("features", "-o", o.output);
    require_output("features", "--picture", o.drawing);
    std::vector<std::string> names;
    for (const auto& file : o.pictures) {
        const std::string name = std::filesystem::path(file).filename().string();
        require(std::find(names.begin(), names.end(), name) == names.end(),
                "[features] two pictures are named {}, expected different names: they are those of "
                "the tensors",
                name);
        const bool utf8 = Json::parse(json_text(name)).get<std::string>() == name;
        require(o.output.empty() || (utf8 && name != "__metadata__"),
                "[features] {} cannot name its tensor, expected UTF-8 other than __metadata__: "
                "rename or link the picture",
                file);
        names.push_back(name);
    }
    std::vector<Image> pictures;
    for (const auto& file : o.pictures) pictures.push_back(load_image(file));
    vk::Device device(o.device);
    vk::Stream stream(device);
    const auto model = SegmentModel::load(stream, find_model(o.model),
                                          choose_precision(device.info(), o.precision));
    std::vector<PictureFeatures> all;
    auto json = Json::array();
    for (size_t i = 0; i < pictures.size(); ++i) {
        all.push_back(read_features(stream, model, pictures[i]));
        json.push_back({{"file", o.pictures[i]},
                        {"rows", all[i].rows},
                        {"columns", all[i].columns},
                        {"width", model.segmenter.config().width}});
    }
    if (!o.output.empty()) save_features(o.output, names, all, model);
    if (!o.drawing.empty()) {
        const auto images = draw_components(all);
        save_png(o.drawing, images.size() == 1 ? images[0] : tile_images(images, 4));
    }
    if (o.json) fmt::print("{}\n", json_text(json, 2));
}

}  // namespace

void add_features(CLI::App& app) {
    auto* command = app.add_subcommand(
        "features",
        "What the segmentation model's encoder sees: a vector for each patch of 8×8 pixels of the\n"
        "picture as the model sees it, for one's own heads and probes");
    auto o = std::make_shared<FeatureOptions>();
    command->add_option("pictures", o->pictures, "PNG or JPEG files, of different names")
        ->required();
    command->add_option("-o,--output", o->output,
                        "FILE.safetensors: a tensor (rows, columns, width) f32 for each picture, "
                        "by its file's name");
    command->add_option("--picture", o->drawing,
                        "PNG: the three principal components of all patches as red, green and "
                        "blue");
    command->add_option("--device", o->device, "Device index or part of its name (see fovea info)");
    command->add_option("--model", o->model, "Model folder");
    command->add_option("--precision", o->precision, "auto, fp16 or fp32")->capture_default_str();
    command->add_flag("--json", o->json, "Print the grids' sizes as JSON");
    command->footer(
        "Examples:\n"
        "  fovea features photo.png --picture parts.png\n"
        "  fovea features a.png b.png -o features.safetensors --json");
    command->callback([o] { run(*o); });
}

}  // namespace fovea::apps
