#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/vk/device.h"

namespace fovea::vk {

/// Workgroups of a dispatch.
struct Groups {
    uint32_t x = 1, y = 1, z = 1;
};

/// One timed dispatch or copy, microseconds since the stream's first event.
struct ProfileEvent {
    std::string name;
    double begin_us = 0;
    double duration_us = 0;
};

/// Records dispatches and copies, derives barriers from the declared accesses, submits many at
/// once. Recording does not wait for the pipelines of programs, submitted work does: where one
/// cannot be made, submit(), wait() or a later call throws Error with the label of its first
/// dispatch; of what was recorded from there on only copies and fills run. Work runs in the order
/// recorded; of several streams of a device, work on the same buffers does (what another stream
/// recorded of them is submitted then). One thread for all of them.
class Stream {
  public:
    explicit Stream(Device& device);
    ~Stream();  ///< waits
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    Device& device() const;

    /// `accesses` in the order of the shader's bindings 0…n−1. `params` is a trivially copyable
    /// struct of at most 128 bytes, the shader's push constants. `label` is the op's name in
    /// profiles and errors.
    template <typename Params>
    void dispatch(const Program& program, std::span<const Access> accesses, const Params& params,
                  Groups groups, std::string_view label) {
        static_assert(std::is_trivially_copyable_v<Params> && sizeof(Params) <= 128);
        dispatch(program, accesses, std::as_bytes(std::span(&params, 1)), groups, label);
    }
    template <typename Params>
    void dispatch(const Program& program, std::initializer_list<Access> accesses,
                  const Params& params, Groups groups, std::string_view label) {
        dispatch(program, std::span(accesses.begin(), accesses.size()), params, groups, label);
    }
    void dispatch(const Program& program, std::span<const Access> accesses,
                  std::span<const std::byte> params, Groups groups, std::string_view label);

    /// Copies host bytes to the start of the range (through staging; the source may go at once).
    void upload(const Access& destination, std::span<const std::byte> bytes);
    /// Waits for all work, then copies the range's start to the host.
    void download(const Access& source, std::span<std::byte> bytes);
    /// The same without a copy of its own: `use` reads where the device wrote.
    void download(const Access& source, const std::function<void(std::span<const std::byte>)>& use);
    void copy(const Access& source, const Access& destination);
    /// Fills with a 32-bit pattern; offset and bytes are multiples of 4.
    void fill(const Access& destination, uint32_t value);

    /// Returns at once: what is recorded starts when its pipelines are there, at a later submit()
    /// or wait() if they are not yet.
    void submit();
    void wait();  ///< submits and waits; throws Error on a lost device or a validation message
    /// As wait(), but for what was submitted before this alone: the next work is recorded while the
    /// device does this one's.
    void wait_for_earlier();

    /// Timing of every dispatch from now on; needs timestamps, else throws Error.
    void profile(bool on);
    const std::vector<ProfileEvent>& profile_events() const;  ///< complete after wait()

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace fovea::vk
