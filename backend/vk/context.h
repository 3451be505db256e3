#pragma once
/// Vulkan objects behind the public headers; included by backend/vk/*.cpp only.

#include <volk.h>
// volk first: it defines VK_NO_PROTOTYPES for everything after it.
#include <vk_mem_alloc.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/error.h"
#include "backend/vk/device.h"
#include "backend/vk/workers.h"

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
    Memory memory = Memory::device;
    uint64_t bytes = 0;
    std::byte* mapped = nullptr;
    uint64_t last_batch = 0;  ///< the last one that uses it; stays when it goes to the pool
};

/// A compute pipeline with its layout. The layout is there at once; a thread of the device's makes
/// the pipeline, for which nobody waits before a batch that uses it goes to the queue.
class Program {
  public:
    enum class State : uint32_t { compiling, ready, failed };

    std::string name;
    VkDescriptorSetLayout set_layout = VK_NULL_HANDLE;
    VkPipelineLayout layout = VK_NULL_HANDLE;
    uint32_t bindings = 0;
    VkPipeline pipeline = VK_NULL_HANDLE;  ///< once ready
    std::string error;                     ///< once failed

    State state() const { return state_.load(std::memory_order_acquire); }
    State wait() const {
        state_.wait(State::compiling, std::memory_order_acquire);
        return state();
    }
    /// By the compiling thread, after it has written what the state speaks of. In one order with
    /// the library's count of who waits, which notify_all() reads next: else that may be read as 0
    /// before this is seen, and somebody waits for ever.
    void finish(State state) {
        state_.store(state, std::memory_order_seq_cst);
        state_.notify_all();
    }

  private:
    std::atomic<State> state_ = State::compiling;
};

/// By name and specialisation constants; looked up without a copy of them.
struct ProgramOrder {
    using is_transparent = void;
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const {
        const int names = std::string_view(a.first).compare(std::string_view(b.first));
        return names != 0 ? names < 0
                          : std::lexicographical_compare(a.second.begin(), a.second.end(),
                                                         b.second.begin(), b.second.end());
    }
};

/// Drivers compile otherwise, or again, to have statistics: only for who reads them.
bool wants_statistics(const PhysicalDevice& physical);
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
    std::map<std::pair<std::string, std::vector<uint32_t>>, Program, ProgramOrder> programs;
    /// Free ones, by kind and size.
    std::map<std::pair<Memory, uint64_t>, std::vector<std::unique_ptr<Buffer::Handle>>> pool;
    std::shared_ptr<Buffer> dummy;  ///< stands in for absent optional bindings
    uint64_t allocated = 0;
    uint64_t peak = 0;
    uint64_t most = UINT64_MAX;  ///< bytes that may be allocated
    uint32_t open_batches =
        0;  ///< recorded or in flight; while > 0 nothing of the pool may be destroyed
    uint64_t last_batch = 0;  ///< number of the last one begun by any stream
    struct Recorded {
        const void* stream;
        std::function<void()> submit;
    };
    /// Batches that are not in the queue yet, by number. Those that share a buffer run in the order
    /// recorded, whichever their streams: the earlier is submitted before the later uses the
    /// buffer.
    std::map<uint64_t, Recorded> recorded;
    size_t cache_bytes_loaded = 0;
    Workers workers;  ///< last: they use what stands above

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
