// A Vulkan layer that loses devices: FOVEA_LOSE_AT is a list of numbers, "20,2": the first device
// opened returns VK_ERROR_DEVICE_LOST from its 20th submission on, the one opened after that from
// its second, later ones never.
#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

namespace {

struct Instance {
    VkInstance handle;
    PFN_vkGetInstanceProcAddr get;
};
struct Device {
    VkDevice handle;
    PFN_vkGetDeviceProcAddr get;
    bool lost = false;
    long submissions = 0;
};

// By their dispatch table, which all handles of one share.
std::mutex mutex;
std::map<void*, Instance> instances;
std::map<void*, Device> devices;

void* table(void* handle) {
    return *static_cast<void**>(handle);
}

/// Takes the number from the list once it is reached: the next device is of the next instance, for
/// which the loader may load this layer anew.
bool loses(long number) {
    const char* text = std::getenv("FOVEA_LOSE_AT");
    if (!text || number != std::atol(text)) return false;
    const std::string list = text;
    const size_t comma = list.find(',');
    setenv("FOVEA_LOSE_AT", comma == list.npos ? "" : list.substr(comma + 1).c_str(), 1);
    return true;
}

template <typename Link>
Link* link_of(const void* chain, VkStructureType type) {
    for (auto* link = static_cast<const Link*>(chain); link;
         link = static_cast<const Link*>(link->pNext))
        if (link->sType == type && link->function == VK_LAYER_LINK_INFO)
            return const_cast<Link*>(link);
    return nullptr;
}

VKAPI_ATTR VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo* info,
                                               const VkAllocationCallbacks* allocator,
                                               VkInstance* instance) {
    auto* link = link_of<VkLayerInstanceCreateInfo>(info->pNext,
                                                    VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO);
    const auto get = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    const auto create = reinterpret_cast<PFN_vkCreateInstance>(get(nullptr, "vkCreateInstance"));
    const VkResult result = create(info, allocator, instance);
    const std::lock_guard lock(mutex);
    if (result == VK_SUCCESS) instances[table(*instance)] = {*instance, get};
    return result;
}

VKAPI_ATTR VkResult VKAPI_CALL create_device(VkPhysicalDevice physical,
                                             const VkDeviceCreateInfo* info,
                                             const VkAllocationCallbacks* allocator,
                                             VkDevice* device) {
    auto* link =
        link_of<VkLayerDeviceCreateInfo>(info->pNext, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO);
    const auto get = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
    const auto get_of_instance = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    const std::lock_guard lock(mutex);
    const auto create = reinterpret_cast<PFN_vkCreateDevice>(
        get_of_instance(instances.at(table(physical)).handle, "vkCreateDevice"));
    const VkResult result = create(physical, info, allocator, device);
    if (result == VK_SUCCESS) devices[table(*device)] = {*device, get};
    return result;
}

/// `handle` is the device or a queue of it.
Device device_of(void* handle, bool submits = false) {
    const std::lock_guard lock(mutex);
    Device& device = devices.at(table(handle));
    if (submits && loses(++device.submissions)) device.lost = true;
    return device;
}

VKAPI_ATTR VkResult VKAPI_CALL submit(VkQueue queue, uint32_t count, const VkSubmitInfo2* infos,
                                      VkFence fence) {
    const Device device = device_of(queue, true);
    if (device.lost) return VK_ERROR_DEVICE_LOST;
    return reinterpret_cast<PFN_vkQueueSubmit2>(device.get(device.handle, "vkQueueSubmit2"))(
        queue, count, infos, fence);
}

VKAPI_ATTR VkResult VKAPI_CALL wait_for_semaphores(VkDevice handle, const VkSemaphoreWaitInfo* info,
                                                   uint64_t timeout) {
    const Device device = device_of(handle);
    if (device.lost) return VK_ERROR_DEVICE_LOST;
    return reinterpret_cast<PFN_vkWaitSemaphores>(device.get(handle, "vkWaitSemaphores"))(
        handle, info, timeout);
}

VKAPI_ATTR VkResult VKAPI_CALL wait_idle(VkDevice handle) {
    const Device device = device_of(handle);
    const auto wait =
        reinterpret_cast<PFN_vkDeviceWaitIdle>(device.get(handle, "vkDeviceWaitIdle"));
    const VkResult result = wait(handle);
    return device.lost ? VK_ERROR_DEVICE_LOST : result;
}

template <typename Function>
PFN_vkVoidFunction as_void(Function function) {
    return reinterpret_cast<PFN_vkVoidFunction>(function);
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_of_device(VkDevice device, const char* name) {
    const std::string_view wanted = name;
    if (wanted == "vkGetDeviceProcAddr") return as_void(get_of_device);
    if (wanted == "vkQueueSubmit2") return as_void(submit);
    if (wanted == "vkWaitSemaphores") return as_void(wait_for_semaphores);
    if (wanted == "vkDeviceWaitIdle") return as_void(wait_idle);
    return device_of(device).get(device, name);
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_of_instance(VkInstance instance, const char* name) {
    const std::string_view wanted = name;
    if (wanted == "vkGetInstanceProcAddr") return as_void(get_of_instance);
    if (wanted == "vkGetDeviceProcAddr") return as_void(get_of_device);
    if (wanted == "vkCreateInstance") return as_void(create_instance);
    if (wanted == "vkCreateDevice") return as_void(create_device);
    if (!instance) return nullptr;
    PFN_vkGetInstanceProcAddr get = nullptr;
    {
        const std::lock_guard lock(mutex);
        get = instances.at(table(instance)).get;
    }
    return get(instance, name);
}

}  // namespace

extern "C" VKAPI_ATTR VkResult VKAPI_CALL
vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface* version) {
    version->loaderLayerInterfaceVersion = 2;
    version->pfnGetInstanceProcAddr = get_of_instance;
    version->pfnGetDeviceProcAddr = get_of_device;
    version->pfnGetPhysicalDeviceProcAddr = nullptr;
    return VK_SUCCESS;
}
