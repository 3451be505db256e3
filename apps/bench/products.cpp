#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "apps/app.h"
#include "apps/bench/ops.h"
#include "apps/bench/timing.h"
#include "backend/error.h"
#include "backend/ops/conv2d.h"
#include "backend/ops/gemm.h"
#include "backend/ops/noise.h"
#include "backend/ops/tile.h"
#include "pipelines/text_to_image.h"

/// gemm and conv2d: x times w plus a bias.
namespace fovea::apps::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Inputs {
    Tensor x, w, bias;
};

struct Case {
    Shape x, w, y;
    std::function<Tensor(vk::Stream&, const Inputs&)> op;
    std::function<double(vk::Stream&, const Inputs&, const Tensor& y)> error;
};

double elements(const Shape& shape) {
    double count = 1;
    for (const int64_t extent : shape) count *= static_cast<double>(extent);
    return count;
}

void measure_and_add(Run& run, Row row, const Case& c) {
    if (interrupted()) throw Cancelled();
    const std::string name = fmt::format("{} {}", row.op, row.shape);
    try {
        vk::Stream stream(run.device);
        row.dtype = name_of(run.dtype);
        row.bytes = (elements(c.x) + elements(c.w) + elements(c.y)) *
                    static_cast<double>(bytes_of(run.dtype));
        row.input_sets = input_sets(run.device.info(), row.bytes);
        std::vector<Inputs> inputs;
        for (int i = 0; i < row.input_sets; ++i) {
            const auto random = [&](const Shape& shape, uint32_t number) {
                return noise(stream, shape, 5, static_cast<uint32_t>(3 * i) + number, run.dtype);
            };
            inputs.push_back({random(c.x, 0), random(c.w, 1), random({c.w.back()}, 2)});
        }
        poison(stream, c.y, run.dtype);
        {
            const auto begin = Clock::now();
            const Tensor y = c.op(stream, inputs[0]);
            stream.wait();
            row.first_seconds = std::chrono::duration<double>(Clock::now() - begin).count();
            row.error = c.error(stream, inputs[0], y);
        }
        row.ok = row.error <= tolerance(run.dtype);
        if (row.ok)
            time_op(run, row,
                    [&](vk::Stream& s, int set) { c.op(s, inputs[static_cast<size_t>(set)]); });
        run.add(std::move(row));
    } catch (const Error& error) {
        run.skip(name, error.what());
    }
    run.device.trim();
}

std::string path_of(const Run& run, int64_t m, int64_t n, int64_t k) {
    return choose_tile(run.device.info(), m, n, k).software ? "software" : "scalar";
}

/// Numbers 0 … count − 1, few of them, the ends among them.
std::vector<int64_t> some_of(int64_t count) {
    std::vector<int64_t> numbers;
    for (const int64_t i : {int64_t{0}, count / 3, count / 2 + count / 64, count - 1})
        if (numbers.empty() || i > numbers.back()) numbers.push_back(i);
    return numbers;
}

Case gemm_case(const GemmShape& s) {
    return {{s.m, s.k},
            {s.k, s.n},
            {s.m, s.n},
            [](vk::Stream& stream, const Inputs& in) {
                return gemm(stream, in.x, in.w, {.bias = in.bias});
            },
            [s](vk::Stream& stream, const Inputs& in, const Tensor& y) {
                Difference difference;
                const auto w = to_host(stream, in.w), bias = to_host(stream, in.bias);
                for (const int64_t row : some_of(s.m)) {
                    const auto x = to_host(stream, in.x.slice(row, 1));
                    const auto found = to_host(stream, y.slice(row, 1));
                    std::vector<double> sums(bias.begin(), bias.end());
                    for (size_t i = 0; i < x.size(); ++i)
                        for (size_t j = 0; j < sums.size(); ++j)
                            sums[j] += double{x[i]} * w[i * sums.size() + j];
                    for (size_t j = 0; j < sums.size(); ++j) difference.add(found[j], sums[j]);
                }
                return difference.relative();
            }};
}

/// Sum of the 3 × 3 neighbours of one output pixel, all channels.
std::vector<double> conv_pixel(const std::vector<float>& x, const std::vector<float>& w,
                               const std::vector<float>& bias, const ConvShape& s, int64_t row,
                               int64_t column) {
    std::vector<double> sums(bias.begin(), bias.end());
    for (int64_t tap = 0; tap < 9; ++tap) {
        const int64_t py = row * s.stride + tap / 3 - 1, px = column * s.stride + tap % 3 - 1;
        if (py < 0 || px < 0 || py >= s.size || px >= s.size) continue;
        for (int64_t i = 0; i < s.ci; ++i) {
            const double value = x[static_cast<size_t>((py * s.size + px) * s.ci + i)];
            for (int64_t o = 0; o < s.co; ++o)
                sums[static_cast<size_t>(o)] +=
                    value * w[static_cast<size_t>((tap * s.ci + i) * s.co + o)];
        }
    }
    return sums;
}

Case conv_case(const ConvShape& s) {
    const int64_t out = (s.size + s.stride - 1) / s.stride;
    return {{1, s.size, s.size, s.ci},
            {3, 3, s.ci, s.co},
            {1, out, out, s.co},
            [s](vk::Stream& stream, const Inputs& in) {
                return conv2d(stream, in.x, in.w, {.bias = in.bias, .stride = s.stride});
            },
            [s, out](vk::Stream& stream, const Inputs& in, const Tensor& y) {
                Difference difference;
                const auto x = to_host(stream, in.x), w = to_host(stream, in.w),
                           bias = to_host(stream, in.bias);
                for (const int64_t row : some_of(out))
                    for (const int64_t column : some_of(out)) {
                        const auto found = to_host(stream, y.index(0).index(row).index(column));
                        const auto wanted = conv_pixel(x, w, bias, s, row, column);
                        for (size_t o = 0; o < wanted.size(); ++o)
                            difference.add(found[o], wanted[o]);
                    }
                return difference.relative();
            }};
}

}  // namespace

void bench_gemm(Run& run, const std::vector<GemmShape>& shapes) {
    for (const GemmShape& s : shapes)
        measure_and_add(run,
                        {.op = "gemm",
                         .set = s.set,
                         .shape = fmt::format("{}x{}x{}", s.m, s.k, s.n),
                         .path = path_of(run, s.m, s.n, s.k),
                         .flops = 2.0 * s.m * s.n * s.k},
                        gemm_case(s));
}

void bench_conv(Run& run, const std::vector<ConvShape>& shapes) {
    for (const ConvShape& s : shapes) {
        const int64_t out = (s.size + s.stride - 1) / s.stride;
        std::string shape = fmt::format("{}x{}x{}x{}", s.size, s.size, s.ci, s.co);
        if (s.stride != 1) shape += fmt::format("/{}", s.stride);
        measure_and_add(run,
                        {.op = "conv",
                         .set = s.set,
                         .shape = shape,
                         .path = path_of(run, out * out, s.co, s.ci),
                         .flops = 18.0 * out * out * s.ci * s.co},
                        conv_case(s));
    }
}

}  // namespace fovea::apps::bench
