#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <typeindex>
#include <unordered_map>
#include <vector>

#include "backend/vk/buffer.h"
#include "backend/vk/shader.h"

namespace fovea::vk {

/// A yes, or a no with its reason.
struct Support {
    bool ok = false;
    std::string why;
};

/// What the device allows, as the driver reports it. Sizes in bytes.
struct Limits {
    uint64_t storage_buffer_range =
        0;  ///< largest range one binding can see (128 MiB on software Vulkan)
    uint64_t allocation_size = 0;  ///< largest single allocation
    uint64_t storage_offset_alignment = 1;
    uint32_t shared_memory = 0;
    uint32_t subgroup_size = 0;
    uint32_t min_subgroup_size = 0;
    uint32_t max_subgroup_size = 0;
    uint32_t workgroup_invocations = 0;
    uint32_t workgroups[3] = {0, 0, 0};
    float timestamp_period = 0;  ///< nanoseconds a tick; 0: no timestamps on the compute queue
};

enum class DeviceType { discrete, integrated, virtual_gpu, cpu, other };

/// Rows and columns of a cooperative matrix product: m × k times k × n.
struct MatrixShape {
    uint32_t m = 0, n = 0, k = 0;
    bool operator==(const MatrixShape&) const = default;
};

struct DeviceInfo {
    uint32_t index = 0;  ///< in the order of list_devices()
    std::string name;
    std::string driver;  ///< name and version, the vendor's words
    std::string api;     ///< "1.3.289"
    DeviceType type = DeviceType::other;
    uint64_t memory = 0;       ///< largest device-local heap
    uint64_t memory_free = 0;  ///< of that heap, by VK_EXT_memory_budget; 0 if unknown
    Limits limits;
    bool fp16_storage = false;
    bool fp16_arithmetic = false;
    bool int8_arithmetic = false;
    Support usable;  ///< whether fovea runs at all
    Support scalar, khr,
        nv2;  ///< attention paths the device could take (built or not is the op's matter)
    std::vector<std::string>
        matrix_shapes;  ///< "16x16x16 f16 f16 f32 f32 subgroup", as the driver lists them
    std::vector<MatrixShape> fp16_matrices;  ///< of these: fp16 operands, fp32 sums, a subgroup
    std::vector<MatrixShape> int8_matrices;  ///< of these: int8 operands, int32 sums, a subgroup
};

/// Every Vulkan device of the machine. Empty when there is a loader but no driver; throws Error
/// without a loader.
std::vector<DeviceInfo> list_devices();

/// The one that Device(choice) opens; throws as that does.
DeviceInfo find_device(std::string_view choice);

class Program;

/// One logical device with its queue, memory, pipelines. Not thread-safe: one thread a Device.
class Device {
  public:
    /// `choice`: index of list_devices(), or a part of the name (any case); empty: FOVEA_DEVICE,
    /// else the first usable device in the order discrete, integrated, virtual, cpu. Throws Error
    /// with every refusal.
    explicit Device(std::string_view choice = {});
    ~Device();
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    const DeviceInfo& info() const;

    /// Memory for `bytes` (rounded up); `what` names it in the out-of-memory error.
    std::shared_ptr<Buffer> allocate(uint64_t bytes, Memory memory,
                                     std::string_view what = "tensor");

    /// The pipeline of a module with specialisation constants 0…n−1; made once, by a thread that
    /// starts now, then cached.
    /// `full_subgroups`: all of limits.subgroup_size invocations, numbered in order.
    const Program& program(const Shader& shader, const std::vector<uint32_t>& constants = {},
                           bool full_subgroups = false);

    /// Bytes now allocated from the driver, and the most there ever were.
    uint64_t allocated() const;
    uint64_t peak_allocated() const;

    /// Gives pooled memory back to the driver. Only when no stream has work recorded or in flight.
    void trim();

    /// Waits for pipelines under way. For a device that outlives main: what drivers clean up on
    /// exit must not be in use.
    void finish_pipelines();

    /// The device's one object of type T, made when first asked for: what an op keeps between calls
    /// (uploaded tables), without globals. May hold buffers; dies before the device.
    template <typename T>
    T& cache() {
        auto& slot = caches_[typeid(T)];
        if (!slot) slot = std::make_shared<T>();
        return *static_cast<T*>(slot.get());
    }

    struct Impl;
    Impl& impl() const { return *impl_; }

  private:
    std::shared_ptr<Impl> impl_;
    std::unordered_map<std::type_index, std::shared_ptr<void>> caches_;
};

/// Validation messages seen so far in this process (layers are on when FOVEA_VALIDATION=1).
uint64_t validation_messages();

}  // namespace fovea::vk
