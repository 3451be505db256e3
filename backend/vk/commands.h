#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/vk/context.h"

namespace fovea::vk {

/// A command buffer that need not wait for pipelines while it is recorded: from the first dispatch
/// on whose pipeline is not there yet, commands are kept and written later.
class Commands {
  public:
    VkCommandBuffer buffer = VK_NULL_HANDLE;

    /// `program` and `label` of a dispatch, else null. `write` gets the buffer. `keep`: not at
    /// once, even if all pipelines are there.
    template <typename Write>
    void put(const Program* program, std::string_view label, const Write& write,
             bool keep = false) {
        const bool ready = !program || program->state() == Program::State::ready;
        if (ready && !keep && kept_.empty())
            write(buffer);
        else
            kept_.push_back({program, std::string(label), write});
    }

    /// Whether write_kept() would wait.
    bool waits() const;

    /// Waits for the pipelines and writes what was kept. From a dispatch on that has no pipeline
    /// only copies and fills are written: its result is missing, but what was uploaded may be in a
    /// cache that lives on. `failure` says why, and on entry whether that was so before.
    void write_kept(std::string& failure);

  private:
    struct Kept {
        const Program* program;
        std::string label;
        std::function<void(VkCommandBuffer)> write;
    };
    std::vector<Kept> kept_;
};

/// The error of a dispatch.
std::string no_pipeline(const Program& program, std::string_view label);

}  // namespace fovea::vk
