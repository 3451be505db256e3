#include "backend/ops/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "apps/app.h"
#include "apps/bench/check.h"
#include "apps/bench/ops.h"
#include "apps/bench/timing.h"
#include "backend/error.h"
#include "backend/ops/noise.h"
#include "pipelines/text_to_image.h"

namespace fovea::apps::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Inputs {
    Tensor q, k, v;
};

struct Case {
    const AttentionShape& shape;
    std::string spec;
    Pattern pattern;
    AttentionPath path;
    std::vector<float> perturb;  ///< u a head, or empty

    Shape tensor_shape() const {
        return {shape.batch, shape.heads, shape.tokens(), shape.head_dim};
    }
};

/// Over a few queries of the first and the last head.
double error_of(vk::Stream& stream, const Case& c, const Inputs& in, const Tensor& o) {
    Difference difference;
    const uint32_t tokens = c.shape.tokens(), d = c.shape.head_dim, last = c.shape.heads - 1;
    const int64_t batch = c.shape.batch - 1;
    for (const uint32_t head : {0u, last}) {
        const auto of_head = [&](const Tensor& x) { return x.index(batch).index(head); };
        const auto k = to_host(stream, of_head(in.k)), v = to_host(stream, of_head(in.v));
        const Pattern pattern = c.pattern.head(head);
        for (const uint32_t query : {0u, tokens / 3, tokens / 2 + tokens / 64, tokens - 1}) {
            const auto row = [&](const Tensor& x) {
                return to_host(stream, of_head(x).slice(query, 1));
            };
            const auto found = row(o);
            const double u = c.perturb.empty() ? 0 : c.perturb[head];
            const auto wanted = attention_row(pattern, query, row(in.q), k, v);
            for (size_t i = 0; i < d; ++i)
                difference.add(found[i], (1 - u) * wanted[i] + u * v[size_t{query} * d + i]);
        }
    }
    return difference.relative();
}

void fill_density(const Run& run, const Case& c, Row& row) {
    fill_density(row, run, c.shape, c.pattern, c.path, run.scores);
    // A perturbed head computes no scores.
    const double scored =
        1 - std::count(c.perturb.begin(), c.perturb.end(), 1.0f) / double(c.shape.heads);
    row.blocks *= scored;
    row.pairs *= scored;
    const double tokens = c.shape.tokens();
    row.flops =
        row.blocks * 4.0 * c.shape.batch * c.shape.heads * tokens * tokens * c.shape.head_dim;
    row.bytes = 4.0 * c.shape.batch * c.shape.heads * tokens * c.shape.head_dim *
                static_cast<double>(bytes_of(run.dtype));
}

/// int8: what the quantisation of normal inputs does to o, with a margin.
double allowed_error(const Run& run) {
    return run.scores == ScorePrecision::int8 ? 2e-2 : tolerance(run.dtype);
}

Row measure(Run& run, const Case& c) {
    vk::Stream stream(run.device);
    const bool int8 = run.scores == ScorePrecision::int8;
    Row row{.op = "attention",
            .set = c.shape.set,
            .pattern = c.spec,
            .shape = c.shape.name(),
            .dtype = int8 ? name_of(run.scores) : name_of(run.dtype),
            .path = name_of(c.path),
            .grid = c.shape.grid};
    fill_density(run, c, row);
    row.input_sets = input_sets(run.device.info(), row.bytes);
    std::vector<Inputs> inputs;
    for (int i = 0; i < row.input_sets; ++i) {
        const auto random = [&](uint32_t number) {
            return noise(stream, c.tensor_shape(), 4, static_cast<uint32_t>(3 * i) + number,
                         run.dtype);
        };
        inputs.push_back({random(0), random(1), random(2)});
    }
    AttentionOptions options{.path = c.path, .scores = run.scores};
    if (!c.perturb.empty())
        options.perturb = upload(stream, c.perturb, {int64_t{c.shape.heads}}, DType::f32);
    poison(stream, c.tensor_shape(), run.dtype);
    {
        const auto begin = Clock::now();
        const Tensor o =
            attention(stream, inputs[0].q, inputs[0].k, inputs[0].v, c.pattern, options);
        stream.wait();
        row.first_seconds = seconds_since(begin);
        row.error = error_of(stream, c, inputs[0], o);
    }
    row.ok = row.error <= allowed_error(run);
    if (!row.ok) return row;
    time_op(run, row, [&](vk::Stream& s, int set) {
        const Inputs& in = inputs[static_cast<size_t>(set)];
        attention(s, in.q, in.k, in.v, c.pattern, options);
    });
    return row;
}

/// Where the rule is constant on blocks: hexadecimal digits, four blocks each, the first in the
/// highest bit; rows run on. Peers read the mask here rather than make it after another rule.
void keep_mask(Run& run, const Case& c) {
    const TileShape block = c.pattern.granularity();
    const std::string key = fmt::format("{} {}", c.spec, c.shape.name());
    if (block.q == 0 || c.pattern.heads() > 0 || run.masks.contains(key)) return;
    const uint32_t tokens = c.shape.tokens();
    const uint32_t rows = (tokens + block.q - 1) / block.q, cols = (tokens + block.k - 1) / block.k;
    std::string digits;
    uint32_t bits = 0, count = 0;
    const auto push = [&](bool bit) {
        bits = bits << 1 | uint32_t{bit};
        if (++count % 4 == 0) digits += "0123456789abcdef"[bits & 15];
    };
    for (uint32_t i = 0; i < rows; ++i)
        for (uint32_t j = 0; j < cols; ++j) push(c.pattern.keeps(i * block.q, j * block.k));
    while (count % 4 != 0) push(false);
    run.masks[key] = {
        {"block", {block.q, block.k}}, {"rows", rows}, {"cols", cols}, {"bits", digits}};
}

void measure_and_add(Run& run, const AttentionShape& shape, const std::string& spec,
                     AttentionPath path) {
    if (interrupted()) throw Cancelled();
    const std::string name = fmt::format("{} {} {}", spec, shape.name(), name_of(path));
    try {
        const Case c{shape, spec, bench_pattern(spec, shape), path,
                     bench_perturb(spec, shape.heads)};
        keep_mask(run, c);
        Row row = measure(run, c);
        if (spec != "dense") row.dense_ms = run.dense_ms("attention", row.shape, name_of(path));
        run.add(std::move(row));
    } catch (const Error& error) {
        run.skip(name, error.what());
    }
    run.device.trim();
}

}  // namespace

void bench_attention(Run& run, const std::vector<AttentionShape>& shapes,
                     const std::vector<std::string>& patterns) {
    for (const AttentionPath path : run.attention_paths(run.scores)) {
        for (const AttentionShape& shape : shapes) {
            for (const std::string& spec : patterns.empty() ? shape.patterns : patterns) {
                AttentionShape whole = shape;
                try {
                    const Pattern pattern = bench_pattern(spec, shape);
                    if (const Grid& grid = pattern.grid(); !grid.shape.empty())
                        whole.text = static_cast<uint32_t>(grid.tokens()) - shape.tokens();
                } catch (const Error& error) {
                    run.skip(fmt::format("{} {}", spec, shape.name()), error.what());
                    continue;
                }
                // Every sparse time stands beside the dense one.
                if (run.dense_ms("attention", whole.name(), name_of(path)) == 0)
                    measure_and_add(run, whole, "dense", path);
                if (spec != "dense") measure_and_add(run, whole, spec, path);
            }
        }
    }
}

}  // namespace fovea::apps::bench
