#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "backend/log.h"
#include "backend/vk/context.h"

namespace fovea::vk {
namespace {

std::atomic<uint64_t> g_validation_messages{0};

VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT,
                                          VkDebugUtilsMessageTypeFlagsEXT,
                                          const VkDebugUtilsMessengerCallbackDataEXT* data, void*) {
    ++g_validation_messages;
    log::error("validation: {}", data->pMessage);
    return VK_FALSE;
}

bool has_layer(const char* name) {
    uint32_t count = 0;
    vkEnumerateInstanceLayerProperties(&count, nullptr);
    std::vector<VkLayerProperties> layers(count);
    vkEnumerateInstanceLayerProperties(&count, layers.data());
    return std::any_of(layers.begin(), layers.end(),
                       [&](const auto& layer) { return std::strcmp(layer.layerName, name) == 0; });
}

}  // namespace

uint64_t validation_messages() {
    return g_validation_messages;
}

const char* result_name(VkResult result) {
    switch (result) {
        case VK_SUCCESS:
            return "success";
        case VK_NOT_READY:
            return "not ready";
        case VK_TIMEOUT:
            return "timeout";
        case VK_ERROR_OUT_OF_HOST_MEMORY:
            return "out of host memory";
        case VK_ERROR_OUT_OF_DEVICE_MEMORY:
            return "out of device memory";
        case VK_ERROR_INITIALIZATION_FAILED:
            return "initialisation failed";
        case VK_ERROR_DEVICE_LOST:
            return "device lost";
        case VK_ERROR_LAYER_NOT_PRESENT:
            return "layer not present";
        case VK_ERROR_EXTENSION_NOT_PRESENT:
            return "extension not present";
        case VK_ERROR_FEATURE_NOT_PRESENT:
            return "feature not present";
        case VK_ERROR_INCOMPATIBLE_DRIVER:
            return "incompatible driver";
        case VK_ERROR_INVALID_SHADER_NV:
            return "invalid shader";
        default:
            return "error";
    }
}

void check(VkResult result, const char* what, const char* file, int line) {
    if (result == VK_SUCCESS) return;
    if (result == VK_ERROR_DEVICE_LOST)
        throw DeviceLost(fmt::format(
            "[vulkan] the device was lost during {}: a hang, a driver reset or a removed device. "
            "Run again; if it happens again, try a smaller size or another device (--device)",
            what));
    fail("[vulkan] {} failed: {} ({}), at {}:{}", what, result_name(result),
         static_cast<int>(result), file, line);
}

Instance::Instance() {
    if (volkInitialize() != VK_SUCCESS)
        fail(
            "[vulkan] no Vulkan loader (libvulkan.so.1) found; scripts/setup.sh installs one and a "
            "software device");
    const VkApplicationInfo application{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                        .pApplicationName = "fovea",
                                        .pEngineName = "fovea",
                                        .apiVersion = VK_API_VERSION_1_3};
    std::vector<const char*> layers, extensions;
    const char* validation = std::getenv("FOVEA_VALIDATION");
    const bool validate = validation && std::string_view(validation) == "1";
    if (validate) {
        require(has_layer("VK_LAYER_KHRONOS_validation"),
                "[vulkan] FOVEA_VALIDATION=1, but VK_LAYER_KHRONOS_validation is not installed");
        layers.push_back("VK_LAYER_KHRONOS_validation");
        extensions.push_back(VK_EXT_DEBUG_UTILS_EXTENSION_NAME);
    }
    const VkInstanceCreateInfo create{
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pApplicationInfo = &application,
        .enabledLayerCount = static_cast<uint32_t>(layers.size()),
        .ppEnabledLayerNames = layers.data(),
        .enabledExtensionCount = static_cast<uint32_t>(extensions.size()),
        .ppEnabledExtensionNames = extensions.data(),
    };
    check(vkCreateInstance(&create, nullptr, &handle), "vkCreateInstance");
    volkLoadInstanceOnly(handle);
    if (!validate) return;
    const VkDebugUtilsMessengerCreateInfoEXT messenger_info{
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = on_message,
    };
    check(vkCreateDebugUtilsMessengerEXT(handle, &messenger_info, nullptr, &messenger),
          "vkCreateDebugUtilsMessengerEXT");
}

Instance::~Instance() {
    if (messenger) vkDestroyDebugUtilsMessengerEXT(handle, messenger, nullptr);
    if (handle) vkDestroyInstance(handle, nullptr);
}

std::shared_ptr<Instance> Instance::get() {
    static std::mutex mutex;
    static std::weak_ptr<Instance> current;
    const std::lock_guard lock(mutex);
    auto instance = current.lock();
    if (!instance) current = instance = std::make_shared<Instance>();
    return instance;
}

}  // namespace fovea::vk
