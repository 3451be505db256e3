#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <optional>

#include "apps/app.h"
#include "apps/bench/blocks.h"
#include "apps/bench/ops.h"
#include "apps/bench/timing.h"
#include "backend/error.h"
#include "backend/ops/reduce.h"
#include "pipelines/text_to_image.h"

namespace fovea::apps::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Case {
    const ModelShape& shape;
    std::string spec;
    Pattern pattern;
};

/// Forces attention and products onto one path, by the variable that users have.
class ForcedPath {
  public:
    explicit ForcedPath(AttentionPath path) {
        if (const char* text = std::getenv(kName)) before_ = text;
        setenv(kName, name_of(path), 1);
    }
    ~ForcedPath() {
        if (before_.empty())
            unsetenv(kName);
        else
            setenv(kName, before_.c_str(), 1);
    }
    ForcedPath(const ForcedPath&) = delete;
    ForcedPath& operator=(const ForcedPath&) = delete;

  private:
    static constexpr const char* kName = "FOVEA_PATH";
    std::string before_;
};

/// One block or denoiser with its inputs.
struct Instance {
    BlockWeights weights;
    Tokens tokens;
    Tensor condition;
    Denoiser denoiser;

    double flops = 0, bytes = 0;  ///< of products; of weights and of tokens in and out
};

Instance make(vk::Stream& stream, const ModelShape& shape, DType dtype, uint32_t set) {
    Instance instance;
    const uint32_t number = set * (shape.layers + 2);
    const auto count = [&](const BlockWeights& weights) {
        instance.flops += weights.flops;
        instance.bytes += weights.bytes;
    };
    if (shape.layers > 0) {
        instance.denoiser = random_denoiser(stream, shape, dtype, number);
        count(instance.denoiser.ends);
        for (const BlockWeights& block : instance.denoiser.blocks) count(block);
    } else {
        instance.weights = random_block(stream, shape, dtype, number);
        instance.tokens = random_tokens(stream, shape, dtype, number);
        instance.condition = random_condition(stream, shape, dtype, number);
        count(instance.weights);
        for (const Tensor& x : {instance.tokens.image, instance.tokens.text})
            if (x) instance.bytes += 2.0 * static_cast<double>(x.bytes());
    }
    stream.wait();
    return instance;
}

void run_once(vk::Stream& stream, const Case& c, const Instance& in) {
    if (c.shape.layers > 0)
        run_denoiser(stream, c.shape, in.denoiser, c.pattern);
    else
        run_block(stream, c.shape, in.weights, in.tokens, in.condition, c.pattern);
}

/// Of sampled tokens; anything not finite in the whole output is infinitely wrong.
double error_of(vk::Stream& stream, const Case& c, const Instance& in) {
    const auto finite = [&](const Tensor& x) {
        const Statistics found = x ? statistics(stream, x) : Statistics();
        return found.nan + found.inf == 0;
    };
    constexpr double kWrong = std::numeric_limits<float>::max();
    if (c.shape.layers > 0) {
        DenoiserTrace trace;
        const Tensor y = run_denoiser(stream, c.shape, in.denoiser, c.pattern, &trace);
        return finite(y) ? denoiser_error(stream, c.shape, in.denoiser, c.pattern, trace, y)
                         : kWrong;
    }
    Trace trace;
    const Tokens y =
        run_block(stream, c.shape, in.weights, in.tokens, in.condition, c.pattern, &trace);
    return finite(y.image) && finite(y.text)
               ? block_error(stream, c.shape, in.weights, in.condition, c.pattern, trace)
               : kWrong;
}

/// Density of the grid's attention among itself, and what all attention of a run computes.
double attention_flops(const Run& run, const Case& c, AttentionPath path, Row& row) {
    const ModelShape& s = c.shape;
    fill_density(row, run, s.attention(), c.pattern, path);
    const double grid = s.tokens(), text = s.text;
    double pairs = row.blocks * grid * grid + grid * text;
    if (s.kind == BlockKind::dual || s.kind == BlockKind::single) pairs += text * (grid + text);
    return std::max(s.layers, 1u) * 4.0 * s.heads * s.head_dim * pairs;
}

/// What a peer needs to build the same.
Json model_of(const ModelShape& s) {
    return {{"kind", name_of(s.kind)}, {"grid", s.grid},           {"heads", s.heads},
            {"head_dim", s.head_dim},  {"hidden", s.hidden},       {"text", s.text},
            {"layers", s.layers},      {"rope_axes", s.rope_axes}, {"rope_theta", s.rope_theta}};
}

Row measure(Run& run, const Case& c, AttentionPath path) {
    Row row{.op = "model",
            .set = c.shape.set,
            .pattern = c.spec,
            .shape = c.shape.name,
            .dtype = name_of(run.dtype),
            .path = name_of(path),
            .grid = c.shape.grid};
    row.model = model_of(c.shape);
    const double attention = attention_flops(run, c, path, row);
    run.device.trim();
    const uint64_t before = run.device.allocated();
    vk::Stream stream(run.device);
    std::vector<Instance> sets;
    sets.push_back(make(stream, c.shape, run.dtype, 0));
    run.device.trim();  // what making the weights took
    row.flops = sets[0].flops + attention;
    row.bytes = sets[0].bytes;
    const auto begin = Clock::now();
    run_once(stream, c, sets[0]);
    stream.wait();
    row.first_seconds = seconds_since(begin);
    row.memory = run.device.allocated() - before;
    row.error = error_of(stream, c, sets[0]);
    row.ok = row.error <= tolerance(run.dtype);
    if (!row.ok) return row;
    row.input_sets = input_sets(run.device.info(), row.bytes);
    for (int i = 1; i < row.input_sets; ++i)
        sets.push_back(make(stream, c.shape, run.dtype, static_cast<uint32_t>(i)));
    run.device.trim();
    time_op(
        run, row, [&](vk::Stream& s, int set) { run_once(s, c, sets[static_cast<size_t>(set)]); },
        true);
    return row;
}

void measure_and_add(Run& run, const ModelShape& shape, const std::string& spec,
                     AttentionPath path) {
    if (interrupted()) throw Cancelled();
    try {
        require(bench_perturb(spec, shape.heads).empty(),
                "[bench] pattern {} found, which models do not have", spec);
        const Case c{shape, spec, bench_pattern(spec, shape.attention())};
        Row row = measure(run, c, path);
        if (spec != "dense") row.dense_ms = run.dense_ms("model", row.shape, name_of(path));
        run.add(std::move(row));
    } catch (const Error& error) {
        run.skip(fmt::format("{} {} {}", spec, shape.name, name_of(path)), error.what());
    }
    run.device.trim();
}

}  // namespace

void bench_model(Run& run, const std::vector<ModelShape>& shapes,
                 const std::vector<std::string>& patterns) {
    for (const AttentionPath path : run.attention_paths()) {
        // Unforced, products choose for themselves.
        std::optional<ForcedPath> forced;
        if (path != choose_path(run.device.info(), run.dtype)) forced.emplace(path);
        for (const ModelShape& shape : shapes) {
            // Every sparse time stands beside the dense one.
            measure_and_add(run, shape, "dense", path);
            for (const std::string& spec : patterns.empty() ? shape.patterns : patterns)
                if (spec != "dense") measure_and_add(run, shape, spec, path);
        }
    }
}

}  // namespace fovea::apps::bench
