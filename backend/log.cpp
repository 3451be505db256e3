#include "backend/log.h"

#include <cstdio>
#include <cstdlib>
#include <string>

namespace fovea::log {

Level level() {
    static const Level chosen = [] {
        const char* text = std::getenv("FOVEA_LOG");
        const std::string name = text ? text : "";
        if (name == "debug") return Level::debug;
        if (name == "info") return Level::info;
        if (name == "error") return Level::error;
        return Level::warn;
    }();
    return chosen;
}

void write(Level level, std::string_view text) {
    static constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
    say("fovea: {}: {}\n", kNames[static_cast<int>(level)], text);
}

void say(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace fovea::log
