/// Prints GFLOP/s of gemm and conv2d by shape: the median of GPU timestamps, the first dispatch
/// (which compiles) left out. On software Vulkan also GFLOP a second of processor time, which holds
/// on a busy machine. Usage: fovea_ops_bench [filter] [seconds a row]

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <functional>

#include "backend/ops/conv2d.h"
#include "backend/ops/gemm.h"

namespace fovea {
namespace {

struct Bench {
    vk::Device device;
    std::string filter;
    double seconds = 0.3;

    void row(const std::string& name, double flops, const std::function<void(vk::Stream&)>& run) {
        if (name.find(filter) == std::string::npos) return;
        using Clock = std::chrono::steady_clock;
        vk::Stream stream(device);
        const auto start = Clock::now();
        run(stream);
        stream.wait();
        const double first = std::chrono::duration<double>(Clock::now() - start).count();
        stream.profile(true);
        const auto begin = Clock::now();
        const std::clock_t processor = std::clock();
        do {
            run(stream);
            stream.wait();
        } while (std::chrono::duration<double>(Clock::now() - begin).count() < seconds);
        const double used = double(std::clock() - processor) / CLOCKS_PER_SEC;
        std::vector<double> times;
        for (const vk::ProfileEvent& event : stream.profile_events())
            if (event.name == "gemm" || event.name == "conv2d") times.push_back(event.duration_us);
        std::sort(times.begin(), times.end());
        const double median = times[times.size() / 2];
        fmt::print("{:<40} {:10.1f} us {:8.1f} GFLOP/s (best {:.1f}, {} runs, first {:.2f} s", name,
                   median, flops / median / 1e3, flops / times[0] / 1e3, times.size(), first);
        if (device.info().type == vk::DeviceType::cpu)
            fmt::print(", a core {:.1f}", flops * times.size() / used / 1e9);
        fmt::print(")\n");
        std::fflush(stdout);
    }

    Tensor random(vk::Stream& stream, const Shape& shape, DType dtype) {
        int64_t count = 1;
        for (const int64_t extent : shape) count *= extent;
        std::vector<float> values(count);
        for (int64_t i = 0; i < count; ++i) values[i] = float(i * 7919 % 1021) / 1021 - 0.5f;
        return upload(stream, values, shape, dtype);
    }

    void gemm_row(int64_t m, int64_t k, int64_t n, DType dtype) {
        vk::Stream stream(device);
        const Tensor x = random(stream, {m, k}, dtype), w = random(stream, {k, n}, dtype);
        const Tensor bias = random(stream, {n}, dtype);
        row(fmt::format("gemm m {} k {} n {} {}", m, k, n, name_of(dtype)), 2.0 * m * k * n,
            [&](vk::Stream& s) { gemm(s, x, w, {.bias = bias}); });
    }

    void conv_row(int64_t size, int64_t ci, int64_t co, int stride, DType dtype) {
        vk::Stream stream(device);
        const Tensor x = random(stream, {1, size, size, ci}, dtype);
        const Tensor w = random(stream, {3, 3, ci, co}, dtype);
        const Tensor bias = random(stream, {co}, dtype);
        const int64_t out = (size + stride - 1) / stride;
        row(fmt::format("conv2d {} x {} {} to {} stride {} {}", size, size, ci, co, stride,
                        name_of(dtype)),
            18.0 * out * out * ci * co,
            [&](vk::Stream& s) { conv2d(s, x, w, {.bias = bias, .stride = stride}); });
    }
};

}  // namespace
}  // namespace fovea

int main(int argc, char** argv) {
    using namespace fovea;
    Bench bench;
    if (argc > 1) bench.filter = argv[1];
    if (argc > 2) bench.seconds = std::stod(argv[2]);
    fmt::print("{}, {}\n", bench.device.info().name, bench.device.info().driver);
    const bool gpu = bench.device.info().type != vk::DeviceType::cpu;
    for (const DType dtype : {DType::f32, DType::f16}) {
        bench.gemm_row(512, 256, 256, dtype);
        bench.gemm_row(512, 256, 832, dtype);
        bench.gemm_row(512, 832, 256, dtype);
        bench.gemm_row(64, 192, 768, dtype);
        bench.gemm_row(2, 256, 1536, dtype);
        if (gpu) bench.gemm_row(4096, 4096, 4096, dtype);
        for (const int64_t size : {256, 128, 64, 32}) bench.conv_row(size, 64, 64, 1, dtype);
        bench.conv_row(256, 12, 64, 1, dtype);
        bench.conv_row(256, 64, 3, 1, dtype);
        bench.conv_row(256, 3, 24, 2, dtype);
    }
}
