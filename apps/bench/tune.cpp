#include "apps/bench/tune.h"

#include <fmt/format.h>

#include <functional>
#include <optional>

#include "apps/app.h"
#include "backend/error.h"
#include "backend/log.h"
#include "backend/ops/conv2d.h"
#include "backend/ops/gemm.h"
#include "backend/ops/noise.h"
#include "backend/ops/tuning.h"
#include "pipelines/text_to_image.h"

namespace fovea::apps::bench {
namespace {

/// Kernels on matrix units, which alone have tiles to choose, take no other type.
constexpr DType kType = DType::f16;

class Tuner {
  public:
    Tuner(vk::Device& device, AttentionPath path)
        : device_(device), stream_(device), path_(path), run_([this](int done, int total) {
              if (interrupted()) throw Cancelled();
              progress_->update(done, total);
          }) {}

    void attention(const AttentionShape& shape, const std::string& spec, ScorePrecision scores) {
        step(fmt::format("attention {} {}", spec, shape.name()), [&] {
            const Pattern pattern = bench_pattern(spec, shape);
            AttentionOptions options{.path = path_, .scores = scores};
            if (const auto u = bench_perturb(spec, shape.heads); !u.empty())
                options.perturb = upload(stream_, u, {int64_t{shape.heads}}, DType::f32);
            const auto x = random({shape.batch, shape.heads, shape.tokens(), shape.head_dim}, 3);
            fovea::attention(stream_, x[0], x[1], x[2], pattern, options);
        });
    }

    void gemm(const GemmShape& s) {
        step(fmt::format("gemm {}x{}x{}", s.m, s.k, s.n), [&] {
            fovea::gemm(stream_, random({s.m, s.k}, 1)[0], random({s.k, s.n}, 1)[0],
                        {.path = path_});
        });
    }

    void conv(const ConvShape& s) {
        step(fmt::format("conv {}x{}x{}x{}/{}", s.size, s.size, s.ci, s.co, s.stride), [&] {
            conv2d(stream_, random({1, s.size, s.size, s.ci}, 1)[0],
                   random({3, 3, s.ci, s.co}, 1)[0], {.stride = s.stride, .path = path_});
        });
    }

    size_t classes() const { return run_.results().size(); }

  private:
    std::vector<Tensor> random(const Shape& shape, uint32_t count) {
        std::vector<Tensor> tensors;
        for (uint32_t i = 0; i < count; ++i)
            tensors.push_back(noise(stream_, shape, 6, number_++, kType));
        return tensors;
    }

    void step(const std::string& name, const std::function<void()>& op) {
        if (interrupted()) throw Cancelled();
        const size_t known = classes();
        try {
            progress_.emplace(name);
            op();
            stream_.wait();
            progress_.reset();
            if (classes() > known)
                print(name, run_.results().back());
            else
                fmt::print("{}: nothing to choose, or a shape before decided it\n", name);
        } catch (const Cancelled&) {
            throw;
        } catch (const Error& error) {
            progress_.reset();
            log::say("fovea: {} skipped: {}\n", name, error.what());
            stream_.wait();  // inputs may be recorded
        }
        device_.trim();
    }

    static void print(const std::string& name, const TuningResult& r) {
        fmt::print("{}: ", name);
        if (r.best.tile == r.rule)
            fmt::print("{} as by rule, {:.4f} ms", r.rule, r.best.ms);
        else
            fmt::print("{}, {:.4f} ms; by rule {}, {:.4f} ms: {:.1f} % faster", r.best.tile,
                       r.best.ms, r.rule, r.best.rule_ms, 100 * (r.best.rule_ms / r.best.ms - 1));
        fmt::print(" ({} tiles)\n", r.candidates);
        std::fflush(stdout);
    }

    vk::Device& device_;
    vk::Stream stream_;
    AttentionPath path_;
    std::optional<Progress> progress_;
    TuningRun run_;
    uint32_t number_ = 0;
};

}  // namespace

void tune_shapes(vk::Device& device, const TuneShapes& shapes, AttentionPath path) {
    Tuner tuner(device, path);
    for (const AttentionShape& shape : shapes.attention)
        for (const std::string& spec : shapes.patterns.empty() ? shape.patterns : shapes.patterns)
            tuner.attention(shape, spec, shapes.scores);
    for (const GemmShape& shape : shapes.gemm) tuner.gemm(shape);
    for (const ConvShape& shape : shapes.conv) tuner.conv(shape);
    require(tuner.classes() > 0,
            "[tune] none of these shapes has tiles to choose from on {}: only fp16 on matrix units "
            "has, khr or nv2 (see fovea info), unless FOVEA_TILE or FOVEA_GEMM_TILE forces one",
            device.info().name);
    const auto file = tuning_file(device.info());
    if (file.empty())
        log::say("fovea: nothing stored: neither XDG_CACHE_HOME nor HOME is set\n");
    else
        fmt::print("stored in {}\n", file.string());
}

}  // namespace fovea::apps::bench
