#include "apps/bench/cases.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backend/error.h"

namespace fovea::apps::bench {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// `where` begins what errors say.
Case read_case(const fs::path& folder, const Json& entry, bool edits, const std::string& where) {
    const auto load = [&](const Json& name) {
        return load_image(folder / name.get<std::string>());
    };
    const auto load_each = [&](const Json& names) {
        std::vector<Image> images;
        for (const auto& name : names) images.push_back(load(name));
        return images;
    };
    const auto read_objects = [&](Case& one) {
        for (const auto& object : entry.at("objects")) {
            one.objects.push_back({object.at("name"), mask_of(load(object.at("mask")))});
            const Mask& mask = one.objects.back().mask;
            require(mask.width == one.picture().width && mask.height == one.picture().height,
                    "{}: a mask of {}×{} found, expected {}×{} as the picture", where, mask.width,
                    mask.height, one.picture().width, one.picture().height);
        }
    };
    if (!edits) {
        Case one;
        one.frames.push_back(load(entry.at("picture")));
        one.name = entry.at("picture");
        one.kind = entry.contains("edit") ? entry.at("edit").at("kind") : entry.at("kind");
        read_objects(one);
        return one;
    }
    const Json& edit = entry.at("edit");
    const bool clip = entry.contains("frames");
    Case one{
        .frames = clip ? load_each(entry.at("frames")) : std::vector{load(entry.at("picture"))},
        .regions = clip ? load_each(edit.at("regions")) : std::vector{load(edit.at("region"))},
        .path = {},
        .name = clip ? "" : entry.at("picture"),
        .prompt = entry.at("prompt"),
        .target = edit.at("prompt"),
        .kind = edit.at("kind"),
        .objects = {}};
    if (clip) {
        for (const auto& place : edit.at("path")) {
            one.path.push_back({place.at(0), place.at(1), place.at(2), place.at(3)});
            require(one.path.back().size > 0, "{}: size {} found in its path, expected above 0",
                    where, one.path.back().size);
        }
        const size_t frames = one.frames.size();
        require(frames > 1 && one.regions.size() == frames && one.path.size() == frames,
                "{}: {} frames, {} regions and a path of {} places found, expected as many of "
                "each, two or more",
                where, frames, one.regions.size(), one.path.size());
        one.name = entry.at("frames")[0];
    } else {
        read_objects(one);
    }
    for (const auto* images : {&one.frames, &one.regions})
        for (const Image& image : *images)
            require(image.width == one.picture().width && image.height == one.picture().height,
                    "{}: frames and regions of {}×{} and {}×{} found, expected one size", where,
                    one.picture().width, one.picture().height, image.width, image.height);
    return one;
}

}  // namespace

std::vector<Case> read_cases(const std::string& path, const CaseChoice& choice) {
    require(!path.empty(),
            "[bench] no cases; training/edit_cases.py writes them, of segment "
            "training/evaluate_segment.py, and --cases names their folder");
    const fs::path folder = path, list = folder / "cases.json";
    std::ifstream file(list);
    require(file.good(), "[bench] {} is missing", list.string());
    const auto json = Json::parse(file, nullptr, false);
    require(json.is_object() && json.contains("cases"), "[bench] {} is not a list of cases",
            list.string());
    std::vector<Case> cases;
    int number = 0;
    for (const auto& entry : json.at("cases")) {
        if (choice.limit > 0 && std::ssize(cases) == choice.limit) break;
        const std::string where = fmt::format("[bench] {}, case {}", list.string(), number++);
        try {
            if (!choice.kind.empty() && entry.at("edit").at("kind") != choice.kind) continue;
            require(choice.clips || !entry.contains("frames"),
                    "{} is a clip, expected pictures, as training/edit_cases.py writes them "
                    "without --clips",
                    where);
            cases.push_back(read_case(folder, entry, choice.edits, where));
        } catch (const Json::exception& error) {
            fail("{}: {}", where, error.what());
        }
        require(cases.back().frames.size() == cases[0].frames.size(),
                "{} has {} frames, the first one {}, expected as many", where,
                cases.back().frames.size(), cases[0].frames.size());
    }
    require(!cases.empty(), "[bench] {} lists no case{}", list.string(),
            choice.kind.empty() ? "" : " of kind " + choice.kind);
    return cases;
}

double psnr_outside(const Image& a, const Image& b, const Image& region) {
    double sum = 0, count = 0;
    for (size_t i = 0; i < a.rgb.size(); ++i) {
        if (region.rgb[i] > 0.5f) continue;
        const double off = double{std::clamp(a.rgb[i], 0.0f, 1.0f)} - b.rgb[i];
        sum += off * off;
        ++count;
    }
    return count == 0 ? 0 : -10 * std::log10(std::max(sum / count, 1e-10));
}

const std::string* another_name(const std::vector<Case>& cases, size_t own) {
    const auto& here = cases[own].objects;
    for (size_t i = 1; i < cases.size(); ++i)
        for (const auto& object : cases[(own + i) % cases.size()].objects)
            if (std::none_of(here.begin(), here.end(),
                             [&](const auto& other) { return other.name == object.name; }))
                return &object.name;
    return nullptr;
}

}  // namespace fovea::apps::bench
