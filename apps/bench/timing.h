#pragma once

#include <functional>

#include "apps/bench/row.h"

namespace fovea::apps::bench {

/// Sets of inputs that repeats go through in turn, so that a cache does not hold the next one's:
/// as many as cover 256 MiB (32 MiB on CPUs) in a quarter of the device's memory, 1 to 16.
int input_sets(const vk::DeviceInfo& device, double bytes_of_one);

/// Runs with set i = 0, 1, … 0, 1 …; fills ms, spread_ms and runs from GPU timestamps, after a
/// warm-up: from the begin of an op's first dispatch to the end of its last. With `attention_ms`,
/// that too: the sum of the run's dispatches of that name.
void time_op(Run& run, Row& row, const std::function<void(vk::Stream&, int set)>& op,
             bool attention_ms = false);

/// Lets memory of this shape hold NaN, which the op's output then most likely takes.
void poison(vk::Stream& stream, const Shape& shape, DType dtype);

/// Relative L2 error, gathered over samples; anything not finite is infinitely wrong.
class Difference {
  public:
    void add(double found, double expected);
    double relative() const;

  private:
    double squares_ = 0, expected_ = 0;
    bool finite_ = true;
};

/// What a right kernel stays below: storage and sums of fp16 operands, or fp32.
double tolerance(DType dtype);

}  // namespace fovea::apps::bench
