#include "backend/ops/peak.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "backend/error.h"
#include "backend/ops/dispatch.h"
#include "backend/ops/matrix_units.h"
#include "shaders.h"

namespace fovea {
namespace {

/// Seconds of the fastest of `runs` after one that warms up: a peak is what is possible.
double best_seconds(vk::Device& device, int runs, const std::function<void(vk::Stream&)>& run) {
    vk::Stream stream(device);
    stream.profile(true);
    for (int i = 0; i < runs + 1; ++i) {
        run(stream);
        stream.wait();
    }
    const auto& events = stream.profile_events();
    double best = 1e300;
    for (size_t i = events.size() - static_cast<size_t>(runs); i < events.size(); ++i)
        best = std::min(best, events[i].duration_us * 1e-6);
    return std::max(best, 1e-9);
}

double bandwidth(vk::Device& device) {
    const vk::DeviceInfo& info = device.info();
    const bool cpu = info.type == vk::DeviceType::cpu;
    // Far more than any cache holds, and what any GPU of today has.
    uint64_t bytes = cpu ? 64 << 20 : 1 << 30;
    bytes = std::min({bytes, info.limits.storage_buffer_range / 4096 * 4096,
                      std::max<uint64_t>(info.memory / 8, 1 << 20) / 4096 * 4096});
    const auto words = static_cast<int64_t>(bytes / 4);
    const Tensor x = empty(device, {words}, DType::i32), y = empty(device, {words}, DType::i32);
    vk::Stream stream(device);
    stream.fill(write(x), 41);
    stream.fill(write(y), 0xffffffff);
    stream.wait();
    const auto count = static_cast<uint32_t>(words / 4);
    const double seconds = best_seconds(device, cpu ? 3 : 10, [&](vk::Stream& s) {
        s.dispatch(device.program(shader::bandwidth, {kElementGroup}), {write(y), read(x)}, count,
                   groups_for(count, kElementGroup), "bandwidth");
    });
    for (const int64_t at : {int64_t{0}, words / 2, words - 1}) {
        int32_t found = 0;
        stream.download(read(y.slice(at, 1)), std::as_writable_bytes(std::span(&found, 1)));
        require(found == 42, "[peak] the bandwidth kernel wrote {}, expected 42", found);
    }
    return 2.0 * static_cast<double>(bytes) / seconds;
}

/// Rounds so that a run takes long enough for the clocks to rise, from a short probe.
uint32_t rounds_for(double probe_seconds, uint32_t probe_rounds) {
    constexpr double kSeconds = 0.02;
    return static_cast<uint32_t>(
        std::clamp(probe_rounds * kSeconds / probe_seconds, 64.0, double(1 << 22)));
}

double fma_rate(vk::Device& device) {
    struct Params {
        uint32_t rounds;
        float factor = 0.5f, addend = 0.75f;
    };
    constexpr uint32_t kWorkgroup = 256, kChains = 8, kSteps = 16;
    const bool cpu = device.info().type == vk::DeviceType::cpu;
    const uint32_t groups = cpu ? 64 : 4096;
    const Tensor y = empty(device, {int64_t{groups} * kWorkgroup}, DType::f32);
    const auto seconds_of = [&](uint32_t rounds, int runs) {
        return best_seconds(device, runs, [&](vk::Stream& s) {
            s.dispatch(device.program(shader::fma_peak, {kWorkgroup}), {write(y)}, Params{rounds},
                       {groups}, "peak");
        });
    };
    const uint32_t rounds = rounds_for(seconds_of(64, 1), 64);
    vk::Stream stream(device);
    stream.fill(write(y), 0xffffffff);
    stream.wait();
    const double seconds = seconds_of(rounds, cpu ? 3 : 10);
    for (const float found : to_host(stream, y.slice(0, kWorkgroup)))
        require(std::abs(found - kChains * 1.5f) < 1e-3f,
                "[peak] the fma kernel wrote {}, expected {}", found, kChains * 1.5f);
    return 2.0 * kChains * kSteps * rounds * groups * kWorkgroup / seconds;
}

double matrix_rate(vk::Device& device, std::string& why) {
    const vk::DeviceInfo& info = device.info();
    if (!info.khr.ok)
        why = info.khr.why;
    else if (shader::matrix_peak.code.empty())
        why = "not built: the shader compiler lacks GL_KHR_cooperative_matrix";
    else if (lacks_matrices(info))
        why = "no fp16 matrices with fp32 sums";
    if (!why.empty()) return 0;
    const vk::MatrixShape usual{16, 16, 16};
    const auto& shapes = info.fp16_matrices;
    const vk::MatrixShape m =
        std::find(shapes.begin(), shapes.end(), usual) != shapes.end() ? usual : shapes[0];
    constexpr uint32_t kSubgroups = 4, kProducts = 8;
    const uint32_t workgroup = kSubgroups * info.limits.subgroup_size, groups = 4096;
    const Tensor y = empty(device, {int64_t{groups} * workgroup}, DType::f32);
    const auto dispatch = [&](vk::Stream& s, uint32_t rounds) {
        s.dispatch(device.program(shader::matrix_peak, {workgroup, m.m, m.n, m.k}, true),
                   {write(y)}, rounds, {groups}, "peak");
    };
    const auto seconds_of = [&](uint32_t rounds, int runs) {
        return best_seconds(device, runs, [&](vk::Stream& s) { dispatch(s, rounds); });
    };
    // How lanes share a matrix is the driver's matter, but sums grow by the same amount a round.
    vk::Stream stream(device);
    const auto sums = [&](uint32_t rounds) {
        stream.fill(write(y), 0xffffffff);
        dispatch(stream, rounds);
        return to_host(stream, y.slice(0, workgroup));
    };
    const auto none = sums(0), some = sums(16), twice = sums(32);
    double grown = 0;
    for (size_t i = 0; i < none.size(); ++i) {
        const double first = some[i] - none[i], second = twice[i] - some[i];
        grown += std::abs(first);
        require(std::abs(first - second) <= 1e-3 * std::abs(first) + 1e-2,
                "[peak] the matrix kernel's sums grew by {} and {} in 16 rounds each", first,
                second);
    }
    require(grown > 0, "[peak] the matrix kernel's sums did not grow");
    const uint32_t rounds = rounds_for(seconds_of(64, 1), 64);
    const double seconds = seconds_of(rounds, 10);
    return 2.0 * m.m * m.n * m.k * kProducts * rounds * groups * kSubgroups / seconds;
}

}  // namespace

Peaks measure_peaks(vk::Device& device) {
    Peaks peaks;
    peaks.bandwidth = bandwidth(device);
    device.trim();
    peaks.fma = fma_rate(device);
    peaks.matrix = matrix_rate(device, peaks.matrix_why);
    return peaks;
}

}  // namespace fovea
