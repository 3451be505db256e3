#include "backend/vk/commands.h"

#include <algorithm>
#include <chrono>

#include "backend/log.h"

namespace fovea::vk {

bool Commands::waits() const {
    return std::any_of(kept_.begin(), kept_.end(), [](const Kept& kept) {
        return kept.program && kept.program->state() == Program::State::compiling;
    });
}

void Commands::write_kept(std::string& failure) {
    using Clock = std::chrono::steady_clock;
    const bool waits = this->waits();
    const auto begin = Clock::now();
    for (const Kept& kept : kept_) {
        if (kept.program && failure.empty() && kept.program->wait() == Program::State::failed)
            failure = no_pipeline(*kept.program, kept.label);
        if (!kept.program || failure.empty()) kept.write(buffer);
    }
    kept_.clear();
    if (waits)
        log::info("{:.2f} s of waiting for pipelines",
                  std::chrono::duration<double>(Clock::now() - begin).count());
}

std::string no_pipeline(const Program& program, std::string_view label) {
    return fmt::format("[{}] its pipeline cannot be made: {}", label, program.error);
}

}  // namespace fovea::vk
