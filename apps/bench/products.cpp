#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "apps/app.h"
#include "apps/bench/check.h"
#include "apps/bench/ops.h"
#include "apps/bench/timing.h"
#include "backend/error.h"
#include "backend/ops/conv2d.h"
#include "backend/ops/gemm.h"
#include "backend/ops/matrix_tile.h"
#include "backend/ops/noise.h"
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
            row.first_seconds = seconds_since(begin);
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

std::vector<std::string> tiles_of(const Run& run) {
    if (run.tiles != std::vector<std::string>{"all"}) return run.tiles;
    std::vector<std::string> tiles;
    for (const MatrixTile& tile : matrix_tiles()) tiles.push_back(to_string(tile));
    return tiles;
}

/// A row for each path asked for; one that does not apply to this product is skipped with its
/// reason, and what several names come down to runs once. `choose` makes of a name the path, which
/// `make` takes.
template <typename Choose, typename Make>
void each_path(Run& run, const Row& row, const Choose& choose, const Make& make) {
    std::vector<AttentionPath> wanted, done;
    for (const std::string& name : run.paths)
        if (name != "all")
            wanted.push_back(parse_path(name));
        else
            for (const auto& [path, support] : attention_paths(run.device.info(), run.dtype))
                wanted.push_back(path);
    for (const AttentionPath name : wanted) try {
            const AttentionPath path = choose(name);
            if (std::find(done.begin(), done.end(), path) != done.end()) continue;
            done.push_back(path);
            Row of_path = row;
            of_path.path = name_of(path);
            if (path == AttentionPath::scalar || run.tiles.empty()) {
                measure_and_add(run, of_path, make(path));
                continue;
            }
            for (const std::string& tile : tiles_of(run)) {
                of_path.pattern = tile;
                setenv("FOVEA_GEMM_TILE", tile.c_str(), 1);
                measure_and_add(run, of_path, make(path));
            }
            unsetenv("FOVEA_GEMM_TILE");
        } catch (const Error& error) {
            run.skip(fmt::format("{} {}", row.op, row.shape), error.what());
        }
}

Case gemm_case(const GemmShape& s, AttentionPath path) {
    return {{s.m, s.k},
            {s.k, s.n},
            {s.m, s.n},
            [path](vk::Stream& stream, const Inputs& in) {
                return gemm(stream, in.x, in.w, {.bias = in.bias, .path = path});
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

Case conv_case(const ConvShape& s, AttentionPath path) {
    const int64_t out = (s.size + s.stride - 1) / s.stride;
    return {{1, s.size, s.size, s.ci},
            {3, 3, s.ci, s.co},
            {1, out, out, s.co},
            [s, path](vk::Stream& stream, const Inputs& in) {
                return conv2d(stream, in.x, in.w,
                              {.bias = in.bias, .stride = s.stride, .path = path});
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
        each_path(
            run,
            {.op = "gemm",
             .set = s.set,
             .shape = fmt::format("{}x{}x{}", s.m, s.k, s.n),
             .flops = 2.0 * s.m * s.n * s.k},
            [&](AttentionPath path) {
                return gemm_path(run.device.info(), run.dtype, s.m, s.n, s.k, path);
            },
            [&](AttentionPath path) { return gemm_case(s, path); });
}

void bench_conv(Run& run, const std::vector<ConvShape>& shapes) {
    for (const ConvShape& s : shapes) {
        const int64_t out = (s.size + s.stride - 1) / s.stride;
        std::string shape = fmt::format("{}x{}x{}x{}", s.size, s.size, s.ci, s.co);
        if (s.stride != 1) shape += fmt::format("/{}", s.stride);
        each_path(
            run,
            {.op = "conv", .set = s.set, .shape = shape, .flops = 18.0 * out * out * s.ci * s.co},
            [&](AttentionPath path) {
                return product_path(run.device.info(), run.dtype, s.ci, path);
            },
            [&](AttentionPath path) { return conv_case(s, path); });
    }
}

}  // namespace fovea::apps::bench
