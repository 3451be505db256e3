#pragma once

#include <string>
#include <vector>

#include "backend/vk/device.h"
#include "pipelines/edit.h"

namespace fovea::apps::bench {

struct EditOptions {
    std::string model, precision = "auto", markdown;
    std::string cases;                 ///< folder that training/edit_cases.py wrote
    std::string pictures;              ///< sheet of sources and results; empty: none
    std::vector<std::string> methods;  ///< names of rows; empty: all
    int limit = 0;                     ///< cases; 0: all
    Edit::Request values;              ///< its numbers
};

/// Pointing game over the cases' objects: whether the peak of a name's map, of the picture mixed
/// with noise, lies in the object's mask. By layer and by their mean. And what reading costs:
/// passes without hooks, with empty ones, and read.
void bench_lens(vk::Device& device, const EditOptions& options);

/// What Edit's weights do: the object that a case would exchange, or its style, weighed in the
/// case's own prompt; the evaluator's confidence, the object's area, the word's share of attention
/// in what comes of it, and what changes within and outside of the region. A row a weight.
void bench_weight(vk::Device& device, const EditOptions& options);

/// The cases' objects found by their names, pipelines/refer.h: mean intersection over union with
/// the object's mask, with and without what the method consists of, handed over to the segmentation
/// model, and by that model alone. A row each.
void bench_refer(vk::Device& device, const EditOptions& options);

/// Every case edited, drawn anew from its target prompt, and by SDEdit (arXiv 2108.01073) at
/// several strengths: share in which the evaluator recognises what was asked for, and PSNR where
/// nothing should change. Clips also with fewer shared frames, and how steady what may change is. A
/// row a method and kind of edit.
void bench_edit(vk::Device& device, const EditOptions& options);

}  // namespace fovea::apps::bench
