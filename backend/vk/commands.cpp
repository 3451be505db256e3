#include "backend/vk/commands.h"

#include <algorithm>

namespace fovea::vk {

bool Commands::waits() const {
    return std::any_of(kept_.begin(), kept_.end(), [](const Kept& kept) {
        return kept.program && kept.program->state() == Program::State::compiling;
    });
}

void Commands::write_kept(std::string& failure) {
    for (const Kept& kept : kept_) {
        if (kept.program && failure.empty() && kept.program->wait() == Program::State::failed)
            failure = no_pipeline(*kept.program, kept.label);
        if (!kept.program || failure.empty()) kept.write(buffer);
    }
    kept_.clear();
}

std::string no_pipeline(const Program& program, std::string_view label) {
    return fmt::format("[{}] its pipeline cannot be made: {}", label, program.error);
}

}  // namespace fovea::vk
