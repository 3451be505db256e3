#pragma once
/// Shared by the tests of small ops: storage types, inputs, outputs that start as NaN.

#include <cstdlib>
#include <limits>
#include <string>

#include "tests/testing.h"

namespace fovea::testing {

inline const DType kStorage[] = {DType::f32, DType::f16};

inline size_t numel(const Shape& shape) {
    size_t count = 1;
    for (const int64_t extent : shape) count *= static_cast<size_t>(extent);
    return count;
}

/// The same values on the host and on the device.
struct Input {
    std::vector<float> host;
    Tensor device;
};

inline Input input(vk::Stream& stream, const Shape& shape, uint32_t seed, DType dtype,
                   float scale = 1) {
    Input result;
    result.host = random_values(numel(shape), seed, dtype, scale);
    result.device = upload(stream, result.host, shape, dtype);
    return result;
}

/// Fills a pooled buffer of this size with NaN and returns it to the pool: the next tensor of this
/// size is made of it, so an element that an op does not write fails the comparison.
inline void poison(vk::Stream& stream, const Shape& shape, DType dtype) {
    for (int i = 0; i < 2; ++i) {
        std::vector<float> nan(numel(shape), std::numeric_limits<float>::quiet_NaN());
        upload(stream, nan, shape, dtype);
    }
    stream.wait();
}

/// Sets an environment variable for a scope.
class Environment {
  public:
    Environment(const char* name, const char* value) : name_(name) {
        const char* old = std::getenv(name);
        had_ = old != nullptr;
        if (had_) old_ = old;
        setenv(name, value, 1);
    }
    ~Environment() {
        if (had_)
            setenv(name_, old_.c_str(), 1);
        else
            unsetenv(name_);
    }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;

  private:
    const char* name_;
    bool had_;
    std::string old_;
};

/// Both ways of ops over rows, see row_plan().
inline const char* const kRowPlans[] = {"group", "invocation"};

}  // namespace fovea::testing
