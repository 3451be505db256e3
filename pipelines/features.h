#pragma once

#include <vector>

#include "pipelines/segment.h"

namespace fovea {

/// What the segmentation encoder sees of a picture: a vector for each 8×8 pixels of it as the model
/// sees it.
struct PictureFeatures {
    int width, height;  ///< of the picture, pixels
    int64_t rows, columns;
    std::vector<float> values;  ///< (rows, columns, width of the model)
};

PictureFeatures read_features(vk::Stream& stream, const SegmentModel& model, const Image& picture);

/// The three principal components of all pictures' vectors together as red, green and blue, 2 % of
/// the vectors beyond either end; each at its picture's size.
std::vector<Image> draw_components(const std::vector<PictureFeatures>& all);

/// A tensor (rows, columns, width) f32 for each of the names. Throws Error.
void save_features(const std::filesystem::path& path, const std::vector<std::string>& names,
                   const std::vector<PictureFeatures>& all, const SegmentModel& model);

}  // namespace fovea
