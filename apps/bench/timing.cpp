#include "apps/bench/timing.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <limits>
#include <span>

#include "apps/app.h"
#include "backend/error.h"
#include "backend/log.h"
#include "backend/vk/profile.h"

namespace fovea::apps::bench {

int input_sets(const vk::DeviceInfo& device, double bytes_of_one) {
    const double mebibyte = 1 << 20;
    const double cover = (device.type == vk::DeviceType::cpu ? 32 : 256) * mebibyte;
    const uint64_t memory = device.memory_free > 0 ? device.memory_free : device.memory;
    const double fit = std::floor(static_cast<double>(memory) / 4 / bytes_of_one);
    return static_cast<int>(std::clamp(std::min(std::ceil(cover / bytes_of_one), fit), 1.0, 16.0));
}

void time_op(Run& run, Row& row, const std::function<void(vk::Stream&, int set)>& op,
             bool attention_ms) {
    using Clock = std::chrono::steady_clock;
    constexpr size_t kLeast = 3, kMost = 2000;
    vk::Stream stream(run.device);
    stream.profile(true);
    // Each run is a submission of its own: it starts when the one before has ended, and the device
    // still never waits for the host between them.
    const auto sweep = [&] {
        for (int set = 0; set < row.input_sets; ++set) {
            op(stream, set);
            stream.submit();
        }
        stream.wait();
    };
    const auto begin = Clock::now();
    const auto elapsed = [&] { return seconds_since(begin); };
    // A GPU that waited while a pipeline was compiled has clocked down, by up to six times on an
    // H200, and takes its time to come back.
    const double warm_up = std::max(run.seconds / 4, run.cpu() ? 0 : 0.3);
    do sweep();
    while (elapsed() < warm_up);
    const std::clock_t processor = std::clock();
    size_t seen = stream.profile_events().size(), each = 0;
    std::vector<double> times, attention_times;
    do {
        sweep();
        const auto& events = stream.profile_events();
        const auto sets = static_cast<size_t>(row.input_sets);
        each = (events.size() - seen) / sets;
        require(each > 0 && (events.size() - seen) % sets == 0,
                "[bench] {} dispatches of {} runs of {}", events.size() - seen, sets, row.op);
        for (; seen < events.size(); seen += each) {
            const auto& last = events[seen + each - 1];
            times.push_back((last.begin_us + last.duration_us - events[seen].begin_us) / 1e3);
            double attention = 0;
            for (size_t i = seen; i < seen + each; ++i)
                if (events[i].name == "attention") attention += events[i].duration_us / 1e3;
            attention_times.push_back(attention);
        }
    } while ((elapsed() < warm_up + run.seconds || times.size() < kLeast) && times.size() < kMost &&
             !interrupted());
    if (run.profile)
        log::say("{}", vk::profile_table(std::span(stream.profile_events()).last(each)));
    const double used = static_cast<double>(std::clock() - processor) / CLOCKS_PER_SEC;
    std::sort(times.begin(), times.end());
    std::sort(attention_times.begin(), attention_times.end());
    const size_t n = times.size();
    if (attention_ms) row.attention_ms = attention_times[n / 2];
    if (run.cpu()) row.core_ms = used * 1e3 / static_cast<double>(n);
    row.ms = std::max(times[n / 2], 1e-6);
    row.spread_ms = times[(3 * n) / 4] - times[n / 4];
    row.runs = static_cast<int>(n);
}

void poison(vk::Stream& stream, const Shape& shape, DType dtype) {
    {
        const Tensor nan = empty(stream.device(), shape, dtype);
        stream.fill(write(nan), 0xffffffff);
    }
    stream.wait();
}

void Difference::add(double found, double expected) {
    finite_ = finite_ && std::isfinite(found);
    squares_ += (found - expected) * (found - expected);
    expected_ += expected * expected;
}

double Difference::relative() const {
    if (!finite_) return std::numeric_limits<float>::max();
    return std::sqrt(squares_ / std::max(expected_, 1e-300));
}

double tolerance(DType dtype) {
    return dtype == DType::f16 ? 1e-2 : 1e-3;
}

}  // namespace fovea::apps::bench
