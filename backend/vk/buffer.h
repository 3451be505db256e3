#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace fovea::vk {

class Device;
class Stream;

enum class Memory {
    device,    ///< fast for the device; may be invisible to the host
    upload,    ///< host writes, device reads
    readback,  ///< device writes, host reads
};

/// Device memory. Made by Device::allocate; when the last owner lets go, device memory returns to
/// the device's pool (reuse is safe: accesses to one buffer run in the order recorded, see Stream).
class Buffer {
  public:
    struct Handle;  ///< Vulkan objects; defined in context.h

    explicit Buffer(std::unique_ptr<Handle> handle);
    ~Buffer();
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    uint64_t bytes() const;
    std::byte* mapped() const;  ///< host address, or nullptr for Memory::device
    Handle& handle() const { return *handle_; }

  private:
    std::unique_ptr<Handle> handle_;
};

/// A range of a buffer and what a dispatch does with it: barriers are derived from these.
struct Access {
    enum class Mode { read, write, read_write };
    std::shared_ptr<Buffer> buffer;  ///< nullptr: an optional binding that is absent
    uint64_t offset = 0;             ///< bytes
    uint64_t bytes = 0;
    Mode mode = Mode::read;
};

}  // namespace fovea::vk
