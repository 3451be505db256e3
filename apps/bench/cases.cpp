#include "apps/bench/cases.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backend/error.h"

namespace fovea::apps::bench {

namespace fs = std::filesystem;

std::vector<Case> read_cases(const std::string& path, int limit, const std::string& kind) {
    require(!path.empty(),
            "[bench] no cases; training/edit_cases.py writes them, --cases names their folder");
    const fs::path folder = path, list = folder / "cases.json";
    std::ifstream file(list);
    require(file.good(), "[bench] {} is missing", list.string());
    const auto json = nlohmann::json::parse(file, nullptr, false);
    require(json.is_object() && json.contains("cases"), "[bench] {} is not a list of cases",
            list.string());
    std::vector<Case> cases;
    for (const auto& entry : json.at("cases")) {
        if (limit > 0 && std::ssize(cases) == limit) break;
        const auto picture = [&](const nlohmann::json& name) {
            return load_image(folder / name.get<std::string>());
        };
        const auto& edit = entry.at("edit");
        if (!kind.empty() && edit.at("kind") != kind) continue;
        Case one{.picture = picture(entry.at("picture")),
                 .region = picture(edit.at("region")),
                 .name = entry.at("picture"),
                 .prompt = entry.at("prompt"),
                 .kind = edit.at("kind"),
                 .target = edit.at("prompt"),
                 .objects = {}};
        for (const auto& object : entry.at("objects"))
            one.objects.push_back({object.at("name"), picture(object.at("mask"))});
        cases.push_back(std::move(one));
    }
    require(!cases.empty(), "[bench] {} lists no case{}", list.string(),
            kind.empty() ? "" : " of kind " + kind);
    return cases;
}

}  // namespace fovea::apps::bench
