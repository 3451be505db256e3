#include <fmt/ranges.h>

#include <chrono>
#include <cstdlib>
#include <fstream>

#include "backend/log.h"
#include "backend/vk/context.h"

namespace fovea::vk {
namespace {

std::vector<uint32_t> shader_words(const Shader& shader) {
    const char* folder = std::getenv("FOVEA_SHADER_DIR");
    if (!folder) return {shader.code.begin(), shader.code.end()};
    const std::string path = fmt::format("{}/{}.spv", folder, shader.name);
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    require(file.good(), "[shader] FOVEA_SHADER_DIR is set, but {} cannot be read", path);
    std::vector<uint32_t> words(static_cast<size_t>(file.tellg()) / 4);
    file.seekg(0);
    file.read(reinterpret_cast<char*>(words.data()),
              static_cast<std::streamsize>(words.size() * 4));
    return words;
}

struct Layout {
    VkDescriptorSetLayout set = VK_NULL_HANDLE;
    VkPipelineLayout whole = VK_NULL_HANDLE;
};

Layout make_layout(const Device::Impl& d, uint32_t count) {
    Layout layout;
    std::vector<VkDescriptorSetLayoutBinding> bindings;
    for (uint32_t i = 0; i < count; ++i)
        bindings.push_back({.binding = i,
                            .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                            .descriptorCount = 1,
                            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
                            .pImmutableSamplers = nullptr});
    const VkDescriptorSetLayoutCreateInfo set_info{
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = count,
        .pBindings = bindings.data()};
    check(d.fn.vkCreateDescriptorSetLayout(d.device, &set_info, nullptr, &layout.set),
          "vkCreateDescriptorSetLayout");
    const VkPushConstantRange push{
        .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .offset = 0, .size = 128};
    const VkPipelineLayoutCreateInfo layout_info{
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = &layout.set,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &push};
    check(d.fn.vkCreatePipelineLayout(d.device, &layout_info, nullptr, &layout.whole),
          "vkCreatePipelineLayout");
    return layout;
}

// By one of the device's threads: nothing of `d` changes that other threads read.
void compile(const Device::Impl& d, Program& program, const std::vector<uint32_t>& words,
             const std::vector<uint32_t>& constants, bool full_subgroups) {
    const auto begin = std::chrono::steady_clock::now();
    const VkShaderModuleCreateInfo module_info{.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                               .codeSize = words.size() * sizeof(uint32_t),
                                               .pCode = words.data()};
    VkShaderModule module = VK_NULL_HANDLE;
    check(d.fn.vkCreateShaderModule(d.device, &module_info, nullptr, &module),
          "vkCreateShaderModule");
    std::vector<VkSpecializationMapEntry> entries;
    for (uint32_t i = 0; i < constants.size(); ++i)
        entries.push_back({.constantID = i, .offset = i * 4, .size = 4});
    const VkSpecializationInfo specialization{
        .mapEntryCount = static_cast<uint32_t>(entries.size()),
        .pMapEntries = entries.data(),
        .dataSize = constants.size() * 4,
        .pData = constants.data()};
    const VkPipelineShaderStageRequiredSubgroupSizeCreateInfo subgroup_size{
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = d.physical.info.limits.subgroup_size};
    const bool required = full_subgroups && d.physical.sets_subgroup_size;
    VkPipelineShaderStageCreateFlags flags = 0;
    if (full_subgroups) flags |= VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT;
    const VkPipelineCreateFlags capture =
        wants_statistics(d.physical) ? VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR : 0;
    const VkComputePipelineCreateInfo create{
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags = capture,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .pNext = required ? &subgroup_size : nullptr,
                  .flags = flags,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main",
                  .pSpecializationInfo = &specialization},
        .layout = program.layout,
        .basePipelineHandle = VK_NULL_HANDLE,
        .basePipelineIndex = -1};
    const VkResult result = d.fn.vkCreateComputePipelines(d.device, d.pipeline_cache, 1, &create,
                                                          nullptr, &program.pipeline);
    d.fn.vkDestroyShaderModule(d.device, module, nullptr);
    check(result, program.name.c_str());
    log::debug("pipeline {} ({}): made in {:.0f} ms", program.name, fmt::join(constants, " "),
               std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
                   .count());
    if (capture) log_statistics(d, program, constants);
}

}  // namespace

uint32_t count_bindings(std::span<const uint32_t> spirv) {
    constexpr uint32_t kOpDecorate = 71, kDecorationBinding = 33, kHeaderWords = 5;
    uint32_t count = 0;
    for (size_t i = kHeaderWords; i < spirv.size();) {
        const uint32_t words = spirv[i] >> 16;
        if ((spirv[i] & 0xffff) == kOpDecorate && words == 4 && spirv[i + 2] == kDecorationBinding)
            count = std::max(count, spirv[i + 3] + 1);
        if (words == 0) break;
        i += words;
    }
    return count;
}

const Program& Device::program(const Shader& shader, const std::vector<uint32_t>& constants,
                               bool full_subgroups) {
    Impl& d = *impl_;
    const auto found = d.programs.find(
        std::pair<std::string_view, std::span<const uint32_t>>(shader.name, constants));
    if (found != d.programs.end()) return found->second;

    auto words = shader_words(shader);
    const uint32_t bindings = count_bindings(words);
    const Layout layout = make_layout(d, bindings);
    Program& program = d.programs[{shader.name, constants}];
    program.name = shader.name;
    program.set_layout = layout.set;
    program.layout = layout.whole;
    program.bindings = bindings;
    d.workers.run([&d, &program, words = std::move(words), constants, full_subgroups] {
        try {
            compile(d, program, words, constants, full_subgroups);
            program.finish(Program::State::ready);
        } catch (const std::exception& error) {
            program.error = error.what();
            program.finish(Program::State::failed);
        }
    });
    return program;
}

}  // namespace fovea::vk
