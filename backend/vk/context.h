#pragma once
/// Vulkan objects behind the public headers; included by backend/vk/*.cpp only.

#include <volk.h>
// volk first: it defines VK_NO_PROTOTYPES for everything after it.
#include <vk_mem_alloc.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "backend/error.h"
#include "backend/vk/device.h"

namespace fovea::vk {

const char* result_name(VkResult result);

/// Throws Error for a failed call; device loss says what it means.
/// The caller's place by builtins: clang 14 has no std::source_location with libstdc++ 12.
void check(VkResult result, const char* what, const char* file = __builtin_FILE(),
           int line = __builtin_LINE());

/// The process's VkInstance, alive as long as somebody holds it.
struct Instance {
    VkInstance handle = VK_NULL_HANDLE;
    VkDebugUtilsMessengerEXT messenger = VK_NULL_HANDLE;
    Instance();
    ~Instance();
    static std::shared_ptr<Instance> get();
};

struct PhysicalDevice {
    VkPhysicalDevice handle = VK_NULL_HANDLE;
    DeviceInfo info;
    uint32_t queue_family = 0;
    bool memory_budget = false;
    bool sets_subgroup_size = false;   // a compute pipeline may ask for a size
    bool pipeline_statistics = false;  // VK_KHR_pipeline_executable_properties
};

std::vector<PhysicalDevice> physical_devices(const Instance& instance);

struct Buffer::Handle {
    std::shared_ptr<Device::Impl> device;  ///< while in use; empty in the pool
    VkBuffer buffer = VK_NULL_HANDLE;
    VmaAllocation allocation = nullptr;
    uint64_t bytes = 0;
    std::byte* mapped = nullptr;
    uint64_t last_batch = 0;  ///< the last one that uses it; stays when it goes to the pool
};

/// A compute pipeline with its layout.
class Program {
  public:
    std::string name;
    VkDescriptorSetLayout set_layout = VK_NULL_HANDLE;
    VkPipelineLayout layout = VK_NULL_HANDLE;
    VkPipeline pipeline = VK_NULL_HANDLE;
    uint32_t bindings = 0;
};

/// Logs what the driver says of a pipeline (registers, spills; what it is depends on the driver).
void log_statistics(const Device::Impl& device, const Program& program,
                    const std::vector<uint32_t>& constants);

/// Number of storage-buffer bindings of set 0 in a module (largest Binding decoration + 1).
uint32_t count_bindings(std::span<const uint32_t> spirv);

struct Device::Impl {
    std::shared_ptr<Instance> instance;
    PhysicalDevice physical;
    VkDevice device = VK_NULL_HANDLE;
    VolkDeviceTable fn{};
    VkQueue queue = VK_NULL_HANDLE;
    VmaAllocator allocator = nullptr;
    VkPipelineCache pipeline_cache = VK_NULL_HANDLE;
    std::map<std::pair<std::string, std::vector<uint32_t>>, Program> programs;
    std::map<uint64_t, std::vector<std::unique_ptr<Buffer::Handle>>> pool;  ///< free, by size
    std::shared_ptr<Buffer> dummy;  ///< stands in for absent optional bindings
    uint64_t allocated = 0;
    uint64_t peak = 0;
    uint32_t open_batches =
        0;  ///< recorded or in flight; while > 0 nothing of the pool may be destroyed
    uint64_t last_batch = 0;  ///< number of the last one begun by any stream
    /// Of each batch that is recorded and not submitted: submits it. Batches that share a buffer
    /// run in the order recorded, whichever their streams: the earlier is submitted before the
    /// later uses the buffer.
    std::map<uint64_t, std::function<void()>> recording;
    size_t cache_bytes_loaded = 0;

    ~Impl();
    std::unique_ptr<Buffer::Handle> create_buffer(uint64_t bytes, Memory memory,
                                                  std::string_view what);
    void destroy(Buffer::Handle& handle);
};

/// Pipeline cache file of this device and driver in the user's cache folder; empty path if there is
/// none.
std::string pipeline_cache_path(const VkPhysicalDeviceProperties& properties);
/// File contents if they are whole and ours, else empty.
std::vector<std::byte> load_pipeline_cache(const std::string& path,
                                           const VkPhysicalDeviceProperties& properties);
void save_pipeline_cache(const std::string& path, std::span<const std::byte> data);

}  // namespace fovea::vk
