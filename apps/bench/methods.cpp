#include "apps/bench/methods.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstdio>
#include <random>

#include "apps/app.h"
#include "apps/bench/settings.h"
#include "apps/bench/timing.h"
#include "backend/error.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/reduce.h"
#include "backend/patterns/parallel.h"
#include "pipelines/text_to_image.h"
#include "vision/layers.h"
#include "vision/methods/calibration.h"
#include "vision/methods/parse.h"

namespace fovea::apps::bench {
namespace {

constexpr float kLogit = 10;     ///< of a token with itself, before noise
constexpr float kChange = 0.1f;  ///< share of a step's values that is new in the next

/// Waves over the grid: a pair of channels has cos and sin of one, so that q·k is a sum of cosines
/// of differences, which falls with the distance as fast as the frequencies are high.
class Waves {
  public:
    Waves(const ModelShape& shape, uint32_t head, uint32_t seed) : shape_(shape) {
        std::mt19937 generator(seed * 131 + head);
        std::normal_distribution<float> normal;
        // Tokens over which a head's attention reaches: within a frame, along time, rows, wide.
        constexpr float kReach[][3] = {{1, 4, 4}, {12, 2, 2}, {2, 2, 16}, {4, 10, 10}};
        const auto& reach = kReach[head % std::size(kReach)];
        const auto wave = [&](float t, float y, float x) {
            return std::array{normal(generator) / t, normal(generator) / y, normal(generator) / x,
                              3.14159f * normal(generator)};
        };
        for (uint32_t i = 0; i < shape.head_dim / 2; ++i)
            waves_.push_back(i % 4 < 3 ? wave(reach[0], reach[1], reach[2]) : wave(10, 20, 20));
        content_ = {wave(8, 12, 12), wave(6, 8, 8)};
    }

    /// Channels of a token: three quarters of the pairs by its place, one by its content.
    void features(uint32_t token, float* out) const {
        const auto& grid = shape_.grid;
        const std::array at{static_cast<float>(token / grid[2] / grid[1]),
                            static_cast<float>(token / grid[2] % grid[1]),
                            static_cast<float>(token % grid[2])};
        const auto angle = [&](const std::array<float, 4>& w) {
            return w[0] * at[0] + w[1] * at[1] + w[2] * at[2] + w[3];
        };
        const float content = std::sin(angle(content_[0])) + std::sin(angle(content_[1]));
        for (size_t i = 0; i < waves_.size(); ++i) {
            const float a = i % 4 < 3 ? angle(waves_[i]) : 8 * waves_[i][3] * content;
            out[2 * i] = std::cos(a);
            out[2 * i + 1] = std::sin(a);
        }
    }

  private:
    const ModelShape& shape_;
    std::vector<std::array<float, 4>> waves_;
    std::array<std::array<float, 4>, 2> content_;
};

struct Step {
    Tensor q, k, v;  ///< (1, tokens, heads, head_dim)
};

/// Two steps, one after the other.
std::array<Step, 2> make_steps(vk::Stream& stream, const ModelShape& s, DType dtype) {
    const size_t tokens = s.tokens(), d = s.head_dim, row = size_t{s.heads} * d;
    std::array<std::array<std::vector<float>, 3>, 2> values;
    for (auto& step : values)
        for (auto& x : step) x.resize(tokens * row);
    // Σ over pairs of cos 0 is d / 2: amplitude² · d / 2 / √d = kLogit.
    const float amplitude = std::sqrt(2 * kLogit / std::sqrt(static_cast<float>(d)));
    for_each_in_parallel(s.heads, [&](uint32_t head) {
        const Waves alike(s, head, 1), value(s, head + 3, 2);
        std::mt19937 generator(head);
        std::normal_distribution<float> normal;
        std::vector<float> f(d), g(d);
        for (uint32_t token = 0; token < tokens; ++token) {
            alike.features(token, f.data());
            value.features(token, g.data());
            for (size_t c = 0; c < d; ++c) {
                const size_t at = token * row + head * d + c;
                const std::array now{amplitude * (f[c] + 0.3f * normal(generator)),
                                     amplitude * (f[c] + 0.3f * normal(generator)),
                                     g[c] + 0.3f * normal(generator)};
                for (size_t i = 0; i < 3; ++i) {
                    values[0][i][at] = now[i];
                    const float size = i < 2 ? amplitude : 1;
                    values[1][i][at] = std::sqrt(1 - kChange * kChange) * now[i] +
                                       kChange * size * normal(generator);
                }
            }
        }
    });
    std::array<Step, 2> steps;
    const Shape shape{1, static_cast<int64_t>(tokens), s.heads, s.head_dim};
    for (size_t i = 0; i < 2; ++i)
        steps[i] = {upload(stream, values[i][0], shape, dtype),
                    upload(stream, values[i][1], shape, dtype),
                    upload(stream, values[i][2], shape, dtype)};
    return steps;
}

double norm(vk::Stream& stream, const Tensor& x) {
    const Statistics s = statistics(stream, x);
    return s.nan + s.inf == 0 ? std::hypot(s.mean, s.stddev) : std::nan("");
}

struct Line {
    std::string shape, method;
    double wanted, pairs, ms, dense_ms, error;
};

/// Runs the method over the first step, then times and checks it on the second.
Line measure(Run& run, const ModelShape& s, const std::array<Step, 2>& steps, const Tensor& exact,
             const MethodSetting& setting, double dense_ms) {
    const auto evaluate = [&](AttentionMethod& method, vk::Stream& stream, int step) {
        method.begin_step(step, 2);
        const Step& x = steps[static_cast<size_t>(step)];
        return method.attention(stream, {0, x.q, x.k, x.v});
    };
    Line line{s.name, setting.name, setting.density, 0, 0, dense_ms, 0};
    {
        vk::Stream stream(run.device);
        const auto learning = setting.make();
        evaluate(*learning, stream, 0);
        const double before = learning->density(stream);
        const Tensor o = evaluate(*learning, stream, 1);
        line.pairs = 2 * learning->density(stream) - before;
        line.error =
            norm(stream, linear_combination(stream, {{1, o}, {-1, exact}})) / norm(stream, exact);
    }
    const auto timed = setting.make();
    Row row;
    {
        vk::Stream stream(run.device);
        evaluate(*timed, stream, 0);
        stream.wait();
    }
    time_op(run, row, [&](vk::Stream& stream, int) { evaluate(*timed, stream, 1); });
    line.ms = row.ms;
    return line;
}

}  // namespace

std::string bench_methods(Run& run, const std::vector<ModelShape>& shapes,
                          const std::vector<double>& densities) {
    std::string text =
        "| shape | method | pairs wanted | computed | ms | times as fast as dense | relative L2 "
        "error "
        "|\n|---|---|---|---|---|---|---|\n";
    for (const ModelShape& s : shapes) {
        if (s.grid.size() != 3) continue;
        fmt::print("{}: {} heads, {} tokens, structured inputs\n", s.name, s.heads, s.tokens());
        run.device.trim();
        vk::Stream stream(run.device);
        const auto steps = make_steps(stream, s, run.dtype);
        const Tensor exact = attend(stream, steps[1].q, steps[1].k, steps[1].v, dense());
        double dense_ms = 0;
        const auto add = [&](const MethodSetting& setting) {
            if (interrupted()) throw Cancelled();
            try {
                const Line line = measure(run, s, steps, exact, setting, dense_ms);
                if (setting.name == "dense") dense_ms = line.ms;
                fmt::print(
                    "{:<24} wanted {:.2f}  pairs {:.3f}  {:9.3f} ms  {:.2f}x  error {:.4f}\n",
                    line.method, line.wanted, line.pairs, line.ms, dense_ms / line.ms, line.error);
                std::fflush(stdout);
                text += fmt::format("| {} | {} | {:.2f} | {:.3f} | {:.3f} | {:.2f} | {:.4f} |\n",
                                    line.shape, line.method, line.wanted, line.pairs, line.ms,
                                    dense_ms / line.ms, line.error);
            } catch (const Error& error) {
                run.skip(fmt::format("{} {}", setting.name, s.name), error.what());
            }
        };
        const std::array grid{s.grid[0], s.grid[1], s.grid[2]};
        add({"dense", "", 1, [] { return pattern_method(dense()); }});
        Calibrator calibrator({.grid = grid,
                               .layers = 1,
                               .heads = s.heads,
                               .block = block_for(s.tokens()),
                               .range_ends = {1}});
        calibrator.begin_step(0, 1);
        calibrator.attention(stream, {0, steps[0].q, steps[0].k, steps[0].v});
        for (const double density : densities)
            for (const MethodSetting& setting :
                 method_settings(grid, {.density = density, .steps = 24}, &calibrator))
                add(setting);
    }
    return text;
}

}  // namespace fovea::apps::bench
