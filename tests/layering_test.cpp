/// Which folder may include which: a reader goes down the folders once and nothing calls back up.
/// The check is a search for #include lines, so it holds for code that is not built here, too.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using Paths = std::vector<std::string>;

struct Layer {
    std::string folder;  ///< the longest match owns a file: backend/vk before backend
    Paths may_include;   ///< folders, or files without extension
};

const Paths kPlain = {"backend/error", "backend/log", "backend/half"};
const Paths kDeviceObjects = {"backend/vk/device", "backend/vk/stream"};

const std::vector<Layer> kLayers = {
    // GLSL includes start at shaders/.
    {"shaders", {"shaders", "common", "params", "attention", "gemm", "conv2d"}},
    {"backend/vk", {"backend/vk", "shaders.h"}},
    {"backend/patterns", {"backend/patterns"}},
    // The enumeration of activations is part of the specification of gemm and conv2d.
    {"backend/reference", {"backend/reference", "backend/patterns", "backend/ops/activation"}},
    {"backend/ops",
     {"backend/ops", "backend/vk", "backend/tensor", "backend/patterns", "backend/reference/noise",
      "shaders", "shaders.h", "tuning_tables.h"}},
    {"backend", {"backend/tensor", "backend/vk"}},
    {"vision",
     {"vision", "backend/ops", "backend/patterns", "backend/tensor", "backend/reference/noise"}},
    // Samplers and guidance are linear combinations of latents, attention cases are one op; the
    // rest
    // of a model is vision's.
    {"pipelines",
     {"pipelines", "vision", "backend/patterns", "backend/tensor", "backend/ops/attention",
      "backend/ops/elementwise", "backend/ops/reduce"}},
    {"apps/bench", {"apps", "pipelines", "vision", "backend"}},
    {"apps",
     {"apps", "pipelines", "vision/image", "vision/rle", "vision/video", "vision/prompt_words",
      "vision/file", "backend/patterns", "backend/vk/profile", "backend/ops/attention",
      "backend/ops/attention_kernel", "backend/ops/attention_rate"}},
};
const std::set<std::string> kAbovePlain = {"vision", "pipelines", "apps"};

const fs::path kRoot = FOVEA_SOURCE_DIR;

bool is_below(const std::string& path, const std::string& folder) {
    return path == folder || path.starts_with(folder + "/") || path.starts_with(folder + ".");
}

bool is_any(const std::string& path, const Paths& folders) {
    for (const auto& folder : folders)
        if (is_below(path, folder)) return true;
    return false;
}

struct Include {
    int line;
    std::string path;
    bool system;
};

std::vector<Include> includes_of(const fs::path& file) {
    static const std::regex pattern(R"(^\s*#\s*include\s*([<"])([^>"]+)[>"])");
    std::vector<Include> result;
    std::ifstream stream(file);
    std::string line;
    std::smatch match;
    for (int number = 1; std::getline(stream, line); ++number)
        if (std::regex_search(line, match, pattern))
            result.push_back({number, match[2], match[1] == "<"});
    return result;
}

/// All sources below the folders of the table, relative to the root, each with its includes.
std::map<std::string, std::vector<Include>> sources() {
    static const std::set<std::string> kExtensions = {".h", ".cpp", ".glsl", ".comp"};
    std::map<std::string, std::vector<Include>> result;
    for (const char* top : {"shaders", "backend", "vision", "pipelines", "apps"}) {
        if (!fs::exists(kRoot / top)) continue;
        for (const auto& entry : fs::recursive_directory_iterator(kRoot / top))
            if (kExtensions.contains(entry.path().extension().string()))
                result[fs::relative(entry.path(), kRoot).generic_string()] =
                    includes_of(entry.path());
    }
    return result;
}

const Layer& layer_of(const std::string& file) {
    for (const auto& layer : kLayers)
        if (is_below(file, layer.folder)) return layer;
    throw std::out_of_range(file);
}

bool is_vulkan(const Include& include) {
    return is_any(include.path, {"vulkan", "volk", "vk_mem_alloc", "vk_video"});
}

TEST(Layering, FoldersIncludeOnlyWhatIsBelowThem) {
    for (const auto& [file, includes] : sources()) {
        const Layer& layer = layer_of(file);
        for (const auto& include : includes) {
            if (include.system) continue;
            const bool beside = fs::exists((kRoot / file).parent_path() / include.path);
            bool allowed = is_any(include.path, layer.may_include) || beside;
            if (layer.folder != "shaders") allowed |= is_any(include.path, kPlain);
            if (kAbovePlain.contains(layer.folder)) allowed |= is_any(include.path, kDeviceObjects);
            EXPECT_TRUE(allowed) << file << ":" << include.line << " includes \"" << include.path
                                 << "\": not allowed in " << layer.folder;
        }
    }
}

TEST(Layering, OnlyBackendVkIncludesVulkan) {
    for (const auto& [file, includes] : sources())
        for (const auto& include : includes)
            EXPECT_FALSE(is_vulkan(include) && !is_below(file, "backend/vk"))
                << file << ":" << include.line << " includes " << include.path;
}

// Handles stay hidden: what a user of the library includes needs no Vulkan headers.
TEST(Layering, NoVulkanHeaderIsReachableFromOutsideBackendVk) {
    const auto all = sources();
    for (const auto& [start, unused] : all) {
        if (is_below(start, "backend/vk") || !start.ends_with(".h")) continue;
        std::set<std::string> seen = {start};
        Paths open = {start};
        while (!open.empty()) {
            const std::string file = open.back();
            open.pop_back();
            if (!all.contains(file)) continue;
            for (const auto& include : all.at(file)) {
                EXPECT_FALSE(is_vulkan(include))
                    << start << " reaches " << include.path << " by way of " << file;
                if (seen.insert(include.path).second) open.push_back(include.path);
            }
        }
    }
}

TEST(Layering, NoSourceIsLongerThan500Lines) {
    for (const auto& [file, unused] : sources()) {
        std::ifstream stream(kRoot / file);
        const auto lines = std::count(std::istreambuf_iterator<char>(stream), {}, '\n');
        EXPECT_LE(lines, 500) << file;
    }
}

TEST(Layering, TheTableIsAlive) {
    const auto all = sources();
    ASSERT_TRUE(all.contains("backend/error.h"));
    EXPECT_GT(all.at("backend/error.h").size(), 0u);
}

}  // namespace
