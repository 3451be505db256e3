#include "backend/vk/device.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>

#include "backend/log.h"
#include "backend/vk/context.h"

namespace fovea::vk {
namespace {

std::string lower(std::string_view text) {
    std::string result(text);
    std::transform(result.begin(), result.end(), result.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return result;
}

std::string describe_all(const std::vector<PhysicalDevice>& devices) {
    std::string text;
    for (const auto& device : devices)
        text +=
            fmt::format("{}{}: {}{}", text.empty() ? "" : "; ", device.info.index, device.info.name,
                        device.info.usable.ok ? "" : " (" + device.info.usable.why + ")");
    return text;
}

PhysicalDevice choose(const Instance& instance, std::string_view wanted) {
    auto devices = physical_devices(instance);
    require(!devices.empty(),
            "[device] no Vulkan device found. Install a GPU driver, or software Vulkan with "
            "scripts/setup.sh (package mesa-vulkan-drivers)");
    const char* environment = std::getenv("FOVEA_DEVICE");
    const std::string choice = lower(!wanted.empty() ? wanted : environment ? environment : "");
    if (!choice.empty()) {
        const bool is_index = std::all_of(choice.begin(), choice.end(),
                                          [](unsigned char c) { return std::isdigit(c); });
        for (auto& device : devices) {
            const bool match = is_index ? std::to_string(device.info.index) == choice
                                        : lower(device.info.name).find(choice) != std::string::npos;
            if (!match) continue;
            require(device.info.usable.ok, "[device] {} cannot be used: {}", device.info.name,
                    device.info.usable.why);
            return std::move(device);
        }
        fail("[device] no device matches \"{}\". Expected an index or a part of a name of: {}",
             choice, describe_all(devices));
    }
    std::stable_sort(devices.begin(), devices.end(), [](const auto& a, const auto& b) {
        return static_cast<int>(a.info.type) < static_cast<int>(b.info.type);
    });
    for (auto& device : devices)
        if (device.info.usable.ok) return std::move(device);
    fail("[device] no device can be used: {}", describe_all(devices));
}

VkDevice create_device(const PhysicalDevice& physical) {
    const float priority = 1;
    const VkDeviceQueueCreateInfo queue{.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                        .queueFamilyIndex = physical.queue_family,
                                        .queueCount = 1,
                                        .pQueuePriorities = &priority};
    std::vector<const char*> extensions;
    if (physical.memory_budget) extensions.push_back(VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);

    // Query what is there, then switch on exactly that part of it that some shader can use.
    VkPhysicalDeviceCooperativeMatrix2FeaturesNV nv2{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV};
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR khr{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR};
    VkPhysicalDeviceVulkan13Features features13{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES};
    VkPhysicalDeviceVulkan12Features features12{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &features13};
    VkPhysicalDeviceVulkan11Features features11{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, .pNext = &features12};
    VkPhysicalDeviceFeatures2 features{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                       .pNext = &features11};
    if (physical.info.khr.ok) {
        extensions.push_back(VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME);
        features13.pNext = &khr;
    }
    if (physical.info.nv2.ok) {
        extensions.push_back(VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME);
        khr.pNext = &nv2;
    }
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR statistics{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR,
        .pNext = features.pNext};
    if (wants_statistics(physical)) {
        extensions.push_back(VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME);
        features.pNext = &statistics;
    }
    vkGetPhysicalDeviceFeatures2(physical.handle, &features);
    features.features.robustBufferAccess = VK_FALSE;
    features13.robustImageAccess = VK_FALSE;
    features12.bufferDeviceAddressCaptureReplay = VK_FALSE;

    const VkDeviceCreateInfo create{
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &features,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = static_cast<uint32_t>(extensions.size()),
        .ppEnabledExtensionNames = extensions.data()};
    VkDevice device = VK_NULL_HANDLE;
    check(vkCreateDevice(physical.handle, &create, nullptr, &device), "vkCreateDevice");
    return device;
}

// Few sizes make the pool hit: eight steps an octave, at least 256 bytes.
uint64_t size_class(uint64_t bytes) {
    if (bytes <= 256) return 256;
    uint64_t step = 32;
    while (step * 16 < bytes) step *= 2;
    return (bytes + step - 1) / step * step;
}

// FOVEA_MEMORY: MiB of a device that one Device may take.
uint64_t memory_limit() {
    const char* environment = std::getenv("FOVEA_MEMORY");
    if (!environment) return UINT64_MAX;
    char* end = nullptr;
    const unsigned long long number = std::strtoull(environment, &end, 10);
    require(end != environment && *end == 0 && number > 0 && number < (1ull << 40),
            "[device] FOVEA_MEMORY={} found, expected MiB of device memory, as in 4096",
            environment);
    return static_cast<uint64_t>(number) << 20;
}

std::string mebibytes(uint64_t bytes) {
    return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

}  // namespace

DeviceInfo find_device(std::string_view choice) {
    return choose(*Instance::get(), choice).info;
}

Buffer::Buffer(std::unique_ptr<Handle> handle) : handle_(std::move(handle)) {}

Buffer::~Buffer() {
    const auto device = std::move(handle_->device);
    if (!device) return;                    // the device's own dummy
    if (handle_->memory == Memory::upload)  // the host may write the next one at once
        device->destroy(*handle_);
    else
        device->pool[{handle_->memory, handle_->bytes}].push_back(std::move(handle_));
}

uint64_t Buffer::bytes() const {
    return handle_->bytes;
}
std::byte* Buffer::mapped() const {
    return handle_->mapped;
}

Device::Device(std::string_view choice) : impl_(std::make_shared<Impl>()) {
    Impl& d = *impl_;
    d.instance = Instance::get();
    d.physical = choose(*d.instance, choice);
    d.most = memory_limit();
    if (d.physical.info.memory_free > 0)
        d.physical.info.memory_free = std::min(d.physical.info.memory_free, d.most);
    d.device = create_device(d.physical);
    volkLoadDeviceTable(&d.fn, d.device);
    d.fn.vkGetDeviceQueue(d.device, d.physical.queue_family, 0, &d.queue);

    VmaVulkanFunctions functions{};
    functions.vkGetInstanceProcAddr = vkGetInstanceProcAddr;
    functions.vkGetDeviceProcAddr = vkGetDeviceProcAddr;
    VmaAllocatorCreateInfo create{};
    if (d.physical.memory_budget) create.flags = VMA_ALLOCATOR_CREATE_EXT_MEMORY_BUDGET_BIT;
    create.physicalDevice = d.physical.handle;
    create.device = d.device;
    create.instance = d.instance->handle;
    create.vulkanApiVersion = VK_API_VERSION_1_3;
    create.pVulkanFunctions = &functions;
    check(vmaCreateAllocator(&create, &d.allocator), "vmaCreateAllocator");

    VkPhysicalDeviceProperties properties;
    vkGetPhysicalDeviceProperties(d.physical.handle, &properties);
    const auto cached = load_pipeline_cache(pipeline_cache_path(properties), properties);
    d.cache_bytes_loaded = cached.size();
    const VkPipelineCacheCreateInfo cache{.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
                                          .initialDataSize = cached.size(),
                                          .pInitialData = cached.data()};
    check(d.fn.vkCreatePipelineCache(d.device, &cache, nullptr, &d.pipeline_cache),
          "vkCreatePipelineCache");
    d.dummy = allocate(256, Memory::device, "dummy binding");
    d.dummy->handle().device.reset();  // else the device would own itself
    log::debug("device {}: {}, {}", d.physical.info.index, d.physical.info.name,
               d.physical.info.driver);
}

Device::~Device() = default;

Device::Impl::~Impl() {
    workers.stop();  // they make pipelines
    if (device) fn.vkDeviceWaitIdle(device);
    if (dummy) destroy(dummy->handle());
    for (auto& [kind, handles] : pool)
        for (auto& handle : handles) destroy(*handle);
    if (pipeline_cache) {
        size_t bytes = 0;
        fn.vkGetPipelineCacheData(device, pipeline_cache, &bytes, nullptr);
        std::vector<std::byte> data(bytes);
        if (bytes > cache_bytes_loaded &&
            fn.vkGetPipelineCacheData(device, pipeline_cache, &bytes, data.data()) == VK_SUCCESS) {
            VkPhysicalDeviceProperties properties;
            vkGetPhysicalDeviceProperties(physical.handle, &properties);
            save_pipeline_cache(pipeline_cache_path(properties), data);
        }
        fn.vkDestroyPipelineCache(device, pipeline_cache, nullptr);
    }
    for (const auto& [key, program] : programs) {
        fn.vkDestroyPipeline(device, program.pipeline, nullptr);
        fn.vkDestroyPipelineLayout(device, program.layout, nullptr);
        fn.vkDestroyDescriptorSetLayout(device, program.set_layout, nullptr);
    }
    if (allocator) vmaDestroyAllocator(allocator);
    if (device) fn.vkDestroyDevice(device, nullptr);
}

void Device::Impl::destroy(Buffer::Handle& handle) {
    if (!handle.buffer) return;
    vmaDestroyBuffer(allocator, handle.buffer, handle.allocation);
    allocated -= handle.bytes;
    handle.buffer = VK_NULL_HANDLE;
}

std::unique_ptr<Buffer::Handle> Device::Impl::create_buffer(uint64_t bytes, Memory memory,
                                                            std::string_view what) {
    const uint64_t largest = physical.info.limits.allocation_size;
    if (bytes > largest)
        throw OutOfMemory(
            fmt::format("[memory] {} needs {}, the device allocates at most {} at once: use a "
                        "smaller size or batch",
                        what, mebibytes(bytes), mebibytes(largest)));
    const VkBufferCreateInfo create{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                    .size = bytes,
                                    .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
                                             VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                             VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    VmaAllocationCreateInfo place{};
    place.usage = memory == Memory::device ? VMA_MEMORY_USAGE_AUTO_PREFER_DEVICE
                                           : VMA_MEMORY_USAGE_AUTO_PREFER_HOST;
    if (memory == Memory::upload)
        place.flags = VMA_ALLOCATION_CREATE_MAPPED_BIT |
                      VMA_ALLOCATION_CREATE_HOST_ACCESS_SEQUENTIAL_WRITE_BIT;
    if (memory == Memory::readback)
        place.flags =
            VMA_ALLOCATION_CREATE_MAPPED_BIT | VMA_ALLOCATION_CREATE_HOST_ACCESS_RANDOM_BIT;

    auto handle = std::make_unique<Buffer::Handle>();
    handle->bytes = bytes;
    handle->memory = memory;
    VmaAllocationInfo placed{};
    const auto make = [&] {
        return allocated + bytes > most
                   ? VK_ERROR_OUT_OF_DEVICE_MEMORY
                   : vmaCreateBuffer(allocator, &create, &place, &handle->buffer,
                                     &handle->allocation, &placed);
    };
    VkResult result = make();
    if (result != VK_SUCCESS && open_batches == 0) {
        for (auto& [kind, handles] : pool)
            for (auto& pooled : handles) destroy(*pooled);
        pool.clear();
        result = make();
    }
    if (result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY) {
        std::array<VmaBudget, VK_MAX_MEMORY_HEAPS> budgets{};
        vmaGetHeapBudgets(allocator, budgets.data());
        uint64_t free = 0;
        for (const auto& budget : budgets)
            free = std::max(free, budget.budget - std::min(budget.budget, budget.usage));
        if (most < UINT64_MAX) free = std::min(free, most - std::min(most, allocated));
        throw OutOfMemory(fmt::format(
            "[memory] out of memory on {}: {} asks {}, {} in use by fovea, about {} free. Reduce "
            "--size or --count, use --precision fp16, or choose another device with --device",
            physical.info.name, what, mebibytes(bytes), mebibytes(allocated), mebibytes(free)));
    }
    check(result, "vmaCreateBuffer");
    if (memory != Memory::device) handle->mapped = static_cast<std::byte*>(placed.pMappedData);
    allocated += bytes;
    peak = std::max(peak, allocated);
    return handle;
}

std::shared_ptr<Buffer> Device::allocate(uint64_t bytes, Memory memory, std::string_view what) {
    Impl& d = *impl_;
    const uint64_t size = size_class(bytes);
    std::unique_ptr<Buffer::Handle> handle;
    if (auto& free = d.pool[{memory, size}]; !free.empty()) {
        handle = std::move(free.back());
        free.pop_back();
    } else {
        handle = d.create_buffer(size, memory, what);
    }
    handle->device = impl_;
    return std::make_shared<Buffer>(std::move(handle));
}

const DeviceInfo& Device::info() const {
    return impl_->physical.info;
}
uint64_t Device::allocated() const {
    return impl_->allocated;
}
uint64_t Device::peak_allocated() const {
    return impl_->peak;
}

void Device::finish_pipelines() {
    impl_->workers.wait();
}

void Device::trim() {
    require(impl_->open_batches == 0,
            "[device] trim while a stream has work recorded or in flight");
    for (auto& [kind, handles] : impl_->pool)
        for (auto& handle : handles) impl_->destroy(*handle);
    impl_->pool.clear();
}

}  // namespace fovea::vk
