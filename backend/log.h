#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

/// Messages to stderr; stdout belongs to results. Level from FOVEA_LOG (debug, info, warn, error;
/// default warn).
namespace fovea::log {

enum class Level { debug, info, warn, error };

Level level();
void write(Level level, std::string_view text);

/// As it is. A terminal that is gone or a full disk behind stderr ends no work: no error is thrown.
void say(std::string_view text);
template <typename... Args>
requires(sizeof...(Args) > 0) void say(fmt::format_string<Args...> format, Args&&... args) {
    say(std::string_view(fmt::format(format, std::forward<Args>(args)...)));
}

template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
    if (level() <= Level::debug)
        write(Level::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
    if (level() <= Level::info)
        write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
    if (level() <= Level::warn)
        write(Level::warn, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace fovea::log
