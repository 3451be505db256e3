#include <fmt/format.h>
#include <fmt/ranges.h>

#include "backend/log.h"
#include "backend/vk/context.h"

namespace fovea::vk {
namespace {

std::string text_of(const VkPipelineExecutableStatisticKHR& statistic) {
    switch (statistic.format) {
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR:
            return statistic.value.b32 ? "yes" : "no";
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR:
            return fmt::format("{}", statistic.value.i64);
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR:
            return fmt::format("{}", statistic.value.u64);
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR:
            return fmt::format("{:.6g}", statistic.value.f64);
        default:
            return "?";
    }
}

}  // namespace

bool wants_statistics(const PhysicalDevice& physical) {
    return physical.pipeline_statistics && log::level() <= log::Level::debug;
}

void log_statistics(const Device::Impl& d, const Program& program,
                    const std::vector<uint32_t>& constants) {
    const VkPipelineInfoKHR pipeline{.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR,
                                     .pipeline = program.pipeline};
    uint32_t executables = 0;
    d.fn.vkGetPipelineExecutablePropertiesKHR(d.device, &pipeline, &executables, nullptr);
    for (uint32_t i = 0; i < executables; ++i) {
        const VkPipelineExecutableInfoKHR executable{
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
            .pipeline = program.pipeline,
            .executableIndex = i};
        uint32_t count = 0;
        d.fn.vkGetPipelineExecutableStatisticsKHR(d.device, &executable, &count, nullptr);
        std::vector<VkPipelineExecutableStatisticKHR> statistics(
            count, {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR});
        d.fn.vkGetPipelineExecutableStatisticsKHR(d.device, &executable, &count, statistics.data());
        std::string text;
        for (const auto& statistic : statistics)
            text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", statistic.name,
                                text_of(statistic));
        log::debug("pipeline {} ({}): {}", program.name, fmt::join(constants, " "), text);
    }
}

}  // namespace fovea::vk
