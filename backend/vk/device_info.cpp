#include <algorithm>
#include <cstring>

#include "backend/vk/context.h"

namespace fovea::vk {
namespace {

DeviceType device_type(VkPhysicalDeviceType type) {
    switch (type) {
        case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
            return DeviceType::discrete;
        case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
            return DeviceType::integrated;
        case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
            return DeviceType::virtual_gpu;
        case VK_PHYSICAL_DEVICE_TYPE_CPU:
            return DeviceType::cpu;
        default:
            return DeviceType::other;
    }
}

const char* component_name(VkComponentTypeKHR type) {
    switch (type) {
        case VK_COMPONENT_TYPE_FLOAT16_KHR:
            return "f16";
        case VK_COMPONENT_TYPE_FLOAT32_KHR:
            return "f32";
        case VK_COMPONENT_TYPE_FLOAT64_KHR:
            return "f64";
        case VK_COMPONENT_TYPE_SINT8_KHR:
            return "i8";
        case VK_COMPONENT_TYPE_SINT32_KHR:
            return "i32";
        case VK_COMPONENT_TYPE_UINT8_KHR:
            return "u8";
        case VK_COMPONENT_TYPE_UINT32_KHR:
            return "u32";
        default:
            return "other";
    }
}

const char* scope_name(VkScopeKHR scope) {
    switch (scope) {
        case VK_SCOPE_SUBGROUP_KHR:
            return "subgroup";
        case VK_SCOPE_WORKGROUP_KHR:
            return "workgroup";
        default:
            return "other scope";
    }
}

void read_matrix_shapes(VkPhysicalDevice device, DeviceInfo& info) {
    uint32_t count = 0;
    vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(device, &count, nullptr);
    std::vector<VkCooperativeMatrixPropertiesKHR> shapes(
        count, {.sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR});
    vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(device, &count, shapes.data());
    for (const auto& shape : shapes) {
        info.matrix_shapes.push_back(fmt::format(
            "{}x{}x{} {} {} {} {} {}", shape.MSize, shape.NSize, shape.KSize,
            component_name(shape.AType), component_name(shape.BType), component_name(shape.CType),
            component_name(shape.ResultType), scope_name(shape.scope)));
        const auto has = [&](VkComponentTypeKHR operands, VkComponentTypeKHR sums) {
            return shape.AType == operands && shape.BType == operands && shape.CType == sums &&
                   shape.ResultType == sums && shape.scope == VK_SCOPE_SUBGROUP_KHR;
        };
        const MatrixShape size{shape.MSize, shape.NSize, shape.KSize};
        if (has(VK_COMPONENT_TYPE_FLOAT16_KHR, VK_COMPONENT_TYPE_FLOAT32_KHR))
            info.fp16_matrices.push_back(size);
        if (has(VK_COMPONENT_TYPE_SINT8_KHR, VK_COMPONENT_TYPE_SINT32_KHR) &&
            !shape.saturatingAccumulation)
            info.int8_matrices.push_back(size);
    }
}

bool has_nv2_features(VkPhysicalDevice device) {
    VkPhysicalDeviceCooperativeMatrix2FeaturesNV nv2{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV};
    VkPhysicalDeviceFeatures2 features{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                       .pNext = &nv2};
    vkGetPhysicalDeviceFeatures2(device, &features);
    return nv2.cooperativeMatrixReductions && nv2.cooperativeMatrixConversions &&
           nv2.cooperativeMatrixPerElementOperations;
}

std::vector<VkExtensionProperties> extensions(VkPhysicalDevice device) {
    uint32_t count = 0;
    vkEnumerateDeviceExtensionProperties(device, nullptr, &count, nullptr);
    std::vector<VkExtensionProperties> list(count);
    vkEnumerateDeviceExtensionProperties(device, nullptr, &count, list.data());
    return list;
}

bool offers(const std::vector<VkExtensionProperties>& list, const char* name) {
    return std::any_of(list.begin(), list.end(), [&](const auto& item) {
        return std::strcmp(item.extensionName, name) == 0;
    });
}

void read_memory(PhysicalDevice& device) {
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 memory{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
        .pNext = device.memory_budget ? &budget : nullptr};
    vkGetPhysicalDeviceMemoryProperties2(device.handle, &memory);
    const auto& properties = memory.memoryProperties;
    for (uint32_t i = 0; i < properties.memoryHeapCount; ++i) {
        const auto& heap = properties.memoryHeaps[i];
        if (!(heap.flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) || heap.size <= device.info.memory)
            continue;
        device.info.memory = heap.size;
        if (device.memory_budget)
            device.info.memory_free =
                budget.heapBudget[i] - std::min(budget.heapBudget[i], budget.heapUsage[i]);
    }
}

Support find_queue(PhysicalDevice& device) {
    uint32_t count = 0;
    vkGetPhysicalDeviceQueueFamilyProperties(device.handle, &count, nullptr);
    std::vector<VkQueueFamilyProperties> families(count);
    vkGetPhysicalDeviceQueueFamilyProperties(device.handle, &count, families.data());
    for (uint32_t i = 0; i < count; ++i) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT)) continue;
        device.queue_family = i;
        if (families[i].timestampValidBits == 0) device.info.limits.timestamp_period = 0;
        return {.ok = true, .why = {}};
    }
    return {.ok = false, .why = "no queue family with compute"};
}

PhysicalDevice describe(VkPhysicalDevice handle, uint32_t index) {
    PhysicalDevice device{.handle = handle};
    DeviceInfo& info = device.info;
    VkPhysicalDeviceMaintenance3Properties maintenance3{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES};
    VkPhysicalDeviceSubgroupSizeControlProperties subgroup_sizes{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES,
        .pNext = &maintenance3};
    VkPhysicalDeviceSubgroupProperties subgroup{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES, .pNext = &subgroup_sizes};
    VkPhysicalDeviceDriverProperties driver{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES, .pNext = &subgroup};
    VkPhysicalDeviceProperties2 properties{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                           .pNext = &driver};
    vkGetPhysicalDeviceProperties(handle, &properties.properties);
    const uint32_t api = properties.properties.apiVersion;
    if (api >= VK_API_VERSION_1_3) vkGetPhysicalDeviceProperties2(handle, &properties);
    const auto& limits = properties.properties.limits;

    device.sets_subgroup_size =
        (subgroup_sizes.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0;
    info.index = index;
    info.name = properties.properties.deviceName;
    info.driver = fmt::format("{} {}", driver.driverName, driver.driverInfo);
    info.api = fmt::format("{}.{}.{}", VK_API_VERSION_MAJOR(api), VK_API_VERSION_MINOR(api),
                           VK_API_VERSION_PATCH(api));
    info.type = device_type(properties.properties.deviceType);
    info.limits = {
        .storage_buffer_range = limits.maxStorageBufferRange,
        .allocation_size = maintenance3.maxMemoryAllocationSize,
        .storage_offset_alignment = limits.minStorageBufferOffsetAlignment,
        .shared_memory = limits.maxComputeSharedMemorySize,
        .subgroup_size = subgroup.subgroupSize,
        .min_subgroup_size = subgroup_sizes.minSubgroupSize,
        .max_subgroup_size = subgroup_sizes.maxSubgroupSize,
        .workgroup_invocations = limits.maxComputeWorkGroupInvocations,
        .workgroups = {limits.maxComputeWorkGroupCount[0], limits.maxComputeWorkGroupCount[1],
                       limits.maxComputeWorkGroupCount[2]},
        .timestamp_period = limits.timestampPeriod,
    };
    if (api < VK_API_VERSION_1_3) {
        info.usable = {.ok = false, .why = fmt::format("Vulkan {} found, 1.3 needed", info.api)};
        info.scalar = info.khr = info.nv2 = info.usable;
        return device;
    }

    const auto offered = extensions(handle);
    device.memory_budget = offers(offered, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    device.pipeline_statistics =
        offers(offered, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME);
    const bool khr = offers(offered, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME);
    const bool nv2 = offers(offered, VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME);

    VkPhysicalDeviceVulkan12Features features12{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES};
    VkPhysicalDeviceVulkan11Features features11{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, .pNext = &features12};
    VkPhysicalDeviceFeatures2 features{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                       .pNext = &features11};
    vkGetPhysicalDeviceFeatures2(handle, &features);
    info.fp16_storage = features11.storageBuffer16BitAccess;
    info.fp16_arithmetic = features12.shaderFloat16;
    info.int8_arithmetic = features12.shaderInt8;
    read_memory(device);
    info.usable = find_queue(device);
    info.scalar = info.usable;
    if (khr) read_matrix_shapes(handle, info);

    if (!khr)
        info.khr.why = "the driver does not offer VK_KHR_cooperative_matrix";
    else if (!info.fp16_storage)
        info.khr.why = "no 16-bit storage buffers";
    else if (!device.sets_subgroup_size &&
             info.limits.min_subgroup_size != info.limits.max_subgroup_size)
        info.khr.why = "subgroups vary in size, and none can be asked for";
    else if (info.fp16_matrices.empty())
        info.khr.why = "no fp16 × fp16 → fp32 matrix shape at subgroup scope";
    else
        info.khr.ok = info.usable.ok;

    if (!nv2)
        info.nv2.why = "the driver does not offer VK_NV_cooperative_matrix2";
    else if (!info.khr.ok)
        info.nv2.why = "needs what khr needs: " + info.khr.why;
    else if (!has_nv2_features(handle))
        info.nv2.why = "no reductions, conversions or element functions of cooperative matrices";
    else
        info.nv2.ok = true;
    return device;
}

}  // namespace

std::vector<PhysicalDevice> physical_devices(const Instance& instance) {
    uint32_t count = 0;
    check(vkEnumeratePhysicalDevices(instance.handle, &count, nullptr),
          "vkEnumeratePhysicalDevices");
    std::vector<VkPhysicalDevice> handles(count);
    check(vkEnumeratePhysicalDevices(instance.handle, &count, handles.data()),
          "vkEnumeratePhysicalDevices");
    std::vector<PhysicalDevice> devices;
    for (const auto handle : handles)
        devices.push_back(describe(handle, static_cast<uint32_t>(devices.size())));
    return devices;
}

std::vector<DeviceInfo> list_devices() {
    const auto instance = Instance::get();
    std::vector<DeviceInfo> infos;
    for (auto& device : physical_devices(*instance)) infos.push_back(std::move(device.info));
    return infos;
}

}  // namespace fovea::vk
