#include "pipelines/features.h"

#include <algorithm>
#include <array>

#include "vision/pca.h"
#include "vision/transfer.h"

namespace fovea {

PictureFeatures read_features(vk::Stream& stream, const SegmentModel& model, const Image& picture) {
    const SegmentView view(stream, model.segmenter, picture, {0, 0, picture.width, picture.height},
                           model.dtype);
    return {picture.width, picture.height, view.features.rows, view.features.columns,
            to_host(stream, view.features.tokens)};
}

std::vector<Image> draw_components(const std::vector<PictureFeatures>& all) {
    std::vector<float> values;
    for (const auto& one : all) values.insert(values.end(), one.values.begin(), one.values.end());
    const int64_t width = std::ssize(all.at(0).values) / (all[0].rows * all[0].columns);
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
    return images;
}

void save_features(const std::filesystem::path& path, const std::vector<std::string>& names,
                   const std::vector<PictureFeatures>& all, const SegmentModel& model) {
    std::vector<NamedTensor> tensors;
    for (size_t i = 0; i < all.size(); ++i)
        tensors.push_back({.name = names[i],
                           .shape = {all[i].rows, all[i].columns, model.segmenter.config().width},
                           .values = all[i].values});
    write_safetensors(path, tensors, {{"model", model.hash}});
}

}  // namespace fovea
