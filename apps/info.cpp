#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "apps/app.h"
#include "backend/ops/attention.h"
#include "backend/vk/device.h"

namespace fovea::apps {
namespace {

const char* type_name(vk::DeviceType type) {
    switch (type) {
        case vk::DeviceType::discrete:
            return "discrete GPU";
        case vk::DeviceType::integrated:
            return "integrated GPU";
        case vk::DeviceType::virtual_gpu:
            return "virtual GPU";
        case vk::DeviceType::cpu:
            return "CPU (software Vulkan)";
        default:
            return "other";
    }
}

vk::Support int8_scores(const vk::DeviceInfo& info, AttentionPath wanted) {
    for (const auto& [path, support] : attention_paths(info, DType::f16, ScorePrecision::int8))
        if (path == wanted) return support;
    return {};
}

void print(const vk::DeviceInfo& info) {
    const auto& limits = info.limits;
    fmt::print("{}: {}\n", info.index, info.name);
    fmt::print("   type         {}\n", type_name(info.type));
    fmt::print("   driver       {}, Vulkan {}\n", info.driver, info.api);
    fmt::print("   memory       {}{}\n", size_text(info.memory),
               info.memory_free ? ", " + size_text(info.memory_free) + " free" : "");
    fmt::print("   limits       storage buffer {}, allocation {}, shared memory {} KiB\n",
               size_text(limits.storage_buffer_range), size_text(limits.allocation_size),
               limits.shared_memory / 1024);
    fmt::print("   subgroup     {} ({} to {}), workgroup up to {}\n", limits.subgroup_size,
               limits.min_subgroup_size, limits.max_subgroup_size, limits.workgroup_invocations);
    fmt::print("   fp16         storage {}, arithmetic {}\n", info.fp16_storage ? "yes" : "no",
               info.fp16_arithmetic ? "yes" : "no");
    if (!info.usable.ok) fmt::print("   unusable     {}\n", info.usable.why);
    fmt::print("   attention\n");
    for (const auto& [path, support] : attention_paths(info)) {
        const vk::Support int8 = int8_scores(info, path);
        fmt::print("     {:<8} {}{}\n", name_of(path), support.ok ? "yes" : "no: " + support.why,
                   !support.ok ? ""
                   : int8.ok   ? ", with int8 scores too"
                               : "; not with int8 scores: " + int8.why);
    }
    for (size_t i = 0; i < info.matrix_shapes.size(); ++i)
        fmt::print("{} {}\n", i == 0 ? "   matrices    " : "               ",
                   info.matrix_shapes[i]);
}

nlohmann::json to_json(const vk::DeviceInfo& info) {
    nlohmann::json paths;
    for (const auto& [path, support] : attention_paths(info)) {
        const vk::Support int8 = int8_scores(info, path);
        paths[name_of(path)] = {{"ok", support.ok},
                                {"why", support.why},
                                {"int8_scores", {{"ok", int8.ok}, {"why", int8.why}}}};
    }
    return {{"index", info.index},
            {"name", info.name},
            {"type", type_name(info.type)},
            {"driver", info.driver},
            {"vulkan", info.api},
            {"memory_bytes", info.memory},
            {"memory_free_bytes", info.memory_free},
            {"storage_buffer_range", info.limits.storage_buffer_range},
            {"shared_memory", info.limits.shared_memory},
            {"subgroup_size", info.limits.subgroup_size},
            {"fp16_storage", info.fp16_storage},
            {"fp16_arithmetic", info.fp16_arithmetic},
            {"usable", info.usable.ok},
            {"attention_paths", paths},
            {"matrix_shapes", info.matrix_shapes}};
}

}  // namespace

void add_info(CLI::App& app) {
    auto* command = app.add_subcommand(
        "info", "List every Vulkan device: driver, memory, limits, attention paths");
    auto json = std::make_shared<bool>(false);
    command->add_flag("--json", *json, "Print JSON");
    command->callback([json] {
        const auto devices = vk::list_devices();
        if (*json) {
            auto list = nlohmann::json::array();
            for (const auto& info : devices) list.push_back(to_json(info));
            fmt::print("{}\n", list.dump(2));
            return;
        }
        for (const auto& info : devices) print(info);
        if (devices.empty())
            fmt::print("no Vulkan device; scripts/setup.sh installs a software one\n");
    });
}

}  // namespace fovea::apps
