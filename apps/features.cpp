#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/app.h"
#include "apps/session.h"
#include "backend/error.h"
#include "pipelines/segment.h"
#include "vision/pca.h"
#include "vision/transfer.h"

namespace fovea::apps {
namespace {

struct FeatureOptions {
    std::vector<std::string> pictures;
    std::string output, drawing, device, model, precision = "auto";
    bool json = false;
};

/// Of one picture, (rows, columns, width).
struct PictureFeatures {
    std::string file;
    int width, height;  ///< of the picture
    int64_t rows, columns;
    std::vector<float> values;
};

// Three components of all pictures together as red, green and blue, 2 % of the tokens beyond
// either end.
void draw(const std::string& path, const std::vector<PictureFeatures>& all, int64_t width) {
    std::vector<float> values;
    for (const auto& one : all) values.insert(values.end(), one.values.begin(), one.values.end());
    const auto components = principal_components(values, width, 3);
    std::array<float, 3> low{}, high{};
    for (size_t c = 0; c < 3; ++c) {
        std::vector<float> sorted;
        for (size_t i = c; i < components.places.size(); i += 3)
            sorted.push_back(components.places[i]);
        std::sort(sorted.begin(), sorted.end());
        low[c] = sorted[sorted.size() / 50];
        high[c] = sorted[sorted.size() - 1 - sorted.size() / 50];
    }
    std::vector<Image> images;
    size_t at = 0;
    for (const auto& one : all) {
        Image grid{static_cast<int>(one.columns), static_cast<int>(one.rows), {}};
        for (int64_t i = 0; i < 3 * one.rows * one.columns; ++i, ++at) {
            const float range = high[at % 3] - low[at % 3];
            grid.rgb.push_back(range > 0 ? (components.places[at] - low[at % 3]) / range : 0.5f);
        }
        for (float& value : grid.rgb) value = std::clamp(value, 0.0f, 1.0f);
        images.push_back(resize(grid, one.width, one.height));
    }
    save_png(path, images.size() == 1 ? images[0] : tile_images(images, 4));
}

void run(const FeatureOptions& o) {
    require(!o.output.empty() || !o.drawing.empty(),
            "[features] no file to write, expected -o FEATURES.safetensors or --picture PCA.png");
    std::vector<Image> pictures;
    std::set<std::string> names;
    for (const auto& file : o.pictures) {
        const std::string name = std::filesystem::path(file).filename().string();
        require(names.insert(name).second,
                "[features] two pictures are named {}, expected different names: they are those of "
                "the tensors",
                name);
        pictures.push_back(load_image(file));
    }
    vk::Device device(o.device);
    vk::Stream stream(device);
    const auto model = SegmentModel::load(stream, find_model(o.model),
                                          choose_precision(device.info(), o.precision));
    const int64_t width = model.segmenter.config().width;
    std::vector<PictureFeatures> all;
    auto json = nlohmann::json::array();
    for (size_t i = 0; i < pictures.size(); ++i) {
        const auto& picture = pictures[i];
        const SegmentView view(stream, model.segmenter, picture,
                               {0, 0, picture.width, picture.height}, model.dtype);
        const auto& features = view.features;
        all.push_back({o.pictures[i], picture.width, picture.height, features.rows,
                       features.columns, to_host(stream, features.tokens)});
        json.push_back({{"file", o.pictures[i]},
                        {"rows", features.rows},
                        {"columns", features.columns},
                        {"width", width}});
    }
    if (!o.drawing.empty()) draw(o.drawing, all, width);
    if (!o.output.empty()) {
        std::vector<NamedTensor> tensors;
        for (auto& one : all)
            tensors.push_back({.name = std::filesystem::path(one.file).filename().string(),
                               .shape = {one.rows, one.columns, width},
                               .values = std::move(one.values)});
        write_safetensors(o.output, tensors, {{"model", model.hash}});
    }
    if (o.json) fmt::print("{}\n", json.dump(2));
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
