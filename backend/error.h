#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace fovea {

/// The exception type: what was found, what was expected, what to do. Only apps/ catch it; the
/// kinds below are for those who can go on after it.
class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

/// Device memory that is not to be had: less at once may fit.
class OutOfMemory : public Error {
  public:
    using Error::Error;
};

/// A hang, a driver reset, a removed device: nothing on it can be used any more.
class DeviceLost : public Error {
  public:
    using Error::Error;
};

/// Throws Error with the formatted message. Convention: "[op] expected …, found …".
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
    throw Error(fmt::format(format, std::forward<Args>(args)...));
}

/// fail() unless the condition holds: the first lines of every public function.
template <typename... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
    if (!condition) fail(format, std::forward<Args>(args)...);
}

}  // namespace fovea
