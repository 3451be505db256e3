#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "pipelines/segment.h"

/// Things that were found, as pictures and as JSON.
namespace fovea::apps {

/// One: white on black. Several, the surest first: a colour each, smaller ones before larger.
Image draw_masks(const std::vector<Segment>& segments, int width, int height);
/// The picture, darker where nothing was found, each thing in its colour.
Image draw_overlay(const Image& picture, const std::vector<Segment>& segments);

/// COCO's fields: score, area in pixels, bbox (left, top, width, height), segmentation (compressed
/// run-length encoding).
nlohmann::json json_of(const Segment& segment);
/// "score 0.93, 1234 pixels (1.9 %), box 10,20,60,50"
std::string to_text(const Segment& segment);

}  // namespace fovea::apps
