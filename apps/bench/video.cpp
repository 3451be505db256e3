#include "apps/bench/video.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "apps/app.h"
#include "apps/bench/row.h"
#include "apps/bench/settings.h"
#include "backend/error.h"
#include "backend/patterns/parallel.h"
#include "pipelines/calibrate.h"
#include "vision/methods/parse.h"

namespace fovea::apps::bench {
namespace {

using Clock = std::chrono::steady_clock;

/// Objects and motions that the model was trained on, none for all clips alike.
std::string prompt_of(int i) {
    constexpr const char* kObjects[] = {
        "fox", "red apple", "rocket",      "balloon", "frog",     "butterfly", "star",
        "cat", "penguin",   "soccer ball", "snail",   "cherries", "bee"};
    constexpr const char* kMotions[] = {
        "moving left", "moving right", "moving up",          "moving down",      "growing",
        "shrinking",   "bouncing",     "moving in a circle", "turning clockwise"};
    constexpr const char* kColors[] = {"blue", "green", "white", "yellow",
                                       "pink", "gray",  "orange"};
    return fmt::format("a {} {} on a {} background", kObjects[i % std::size(kObjects)],
                       kMotions[i % std::size(kMotions)], kColors[i % std::size(kColors)]);
}

struct Quality {
    double psnr, ssim;
};

/// Of whole clips: the mean square error of all frames, the mean SSIM of each.
Quality quality(const std::vector<Image>& clip, const std::vector<Image>& exact) {
    std::vector<double> squares(clip.size()), similar(clip.size());
    for_each_in_parallel(static_cast<uint32_t>(clip.size()), [&](uint32_t i) {
        squares[i] = std::pow(10, -psnr(clip[i], exact[i]) / 10);
        similar[i] = ssim(clip[i], exact[i]);
    });
    const auto mean = [](const std::vector<double>& x) {
        return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
    };
    return {-10 * std::log10(std::max(mean(squares), 1e-10)), mean(similar)};
}

/// As a file shows them.
void clamp(std::vector<Image>& frames) {
    for (Image& frame : frames)
        for (float& value : frame.rgb) value = std::clamp(value, 0.0f, 1.0f);
}

struct RowSetting {
    std::string name, note;
    double density;  ///< asked for; 1: dense attention
    std::function<ClipMethod()> make;
};

class Study {
  public:
    Study(vk::Device& device, const VideoOptions& options)
        : options_(options),
          stream_(device),
          model_(Model::load(stream_, find_model(options.model),
                             choose_precision(device.info(), options.precision))),
          latent_{options.frames, options.size / Autoencoder::kDown,
                  options.size / Autoencoder::kDown, model_.dit.config().latent_channels} {}

    DitGrid grid() const {
        return model_.dit.grid({1, latent_[0], latent_[1], latent_[2], latent_[3]});
    }
    const Model& model() const { return model_; }
    vk::Stream& stream() { return stream_; }

    std::unique_ptr<Calibrator> calibrate() {
        CalibrationRequest request;
        request.steps = options_.steps;
        request.cfg = options_.cfg;
        request.frames = options_.frames;
        request.width = request.height = options_.size;
        request.prompts = {"a dog moving right on a white background",
                           "a red heart growing on a green background"};
        request.seed = 1'000'000 + options_.seed;
        request.cancel = &interrupted();
        return measure_attention(stream_, model_, request);
    }

    struct Clip {
        std::vector<Image> frames;
        double seconds;
    };
    Clip draw(int number, ClipMethod& method) {
        DenoiseRequest request;
        request.prompt = prompt_of(number);
        request.steps = options_.steps;
        request.cfg = options_.cfg;
        request.cancel = &interrupted();
        const uint64_t seeds[] = {options_.seed + static_cast<uint64_t>(number)};
        const Denoiser denoiser(
            stream_, model_, request, latent_, seeds,
            [&](const Evaluation& at) { return method.hooks(at.step, at.steps); });
        const auto begin = Clock::now();
        const Tensor z = denoiser.run();
        Clip clip{{}, seconds_since(begin)};
        const Tensor latents = z.reshape(latent_);
        constexpr int64_t kAtOnce = 4;
        for (int64_t i = 0; i < latents.dim(0); i += kAtOnce)
            for (Image& frame :
                 denoiser.decode(latents.slice(i, std::min(kAtOnce, latents.dim(0) - i))))
                clip.frames.push_back(std::move(frame));
        clamp(clip.frames);
        return clip;
    }

  private:
    const VideoOptions& options_;
    vk::Stream stream_;
    Model model_;
    Shape latent_;
};

std::vector<RowSetting> row_settings(Study& study, const VideoOptions& o) {
    const DitGrid grid = study.grid();
    const std::array<uint32_t, 3> tokens{static_cast<uint32_t>(grid[0]),
                                         static_cast<uint32_t>(grid[1]),
                                         static_cast<uint32_t>(grid[2])};
    const bool calibrates =
        o.methods.empty() ||
        std::any_of(o.methods.begin(), o.methods.end(), [](const std::string& method) {
            return method.find("reordered") != std::string::npos;
        });
    std::shared_ptr<Calibrator> calibrator;
    if (calibrates) {
        fmt::print("calibrating on two other prompts\n");
        std::fflush(stdout);
        const auto begin = Clock::now();
        calibrator = study.calibrate();
        fmt::print("calibrated in {}\n", duration_text(seconds_since(begin)));
    }
    std::vector<RowSetting> rows;
    for (const double density : o.densities)
        for (const int dense_steps : o.dense_steps) {
            const MethodBudget budget{.density = density,
                                      .steps = o.steps,
                                      .dense_steps = std::min(dense_steps, o.steps)};
            for (const MethodSetting& setting : method_settings(tokens, budget, calibrator.get()))
                rows.push_back({setting.name,
                                fmt::format("{}, {} dense steps", setting.note, dense_steps),
                                density, [make = setting.make] {
                                    return ClipMethod{make(), nullptr};
                                }});
        }
    for (const char* cache : {"runs:every=2", "runs:every=3", "threshold:change=0.1",
                              "threshold:change=0.2", "threshold:change=0.3"})
        rows.push_back({"cache", cache, 1, [&study, cache, grid] {
                            return make_method({.cache = cache}, study.model().dit.config(), grid);
                        }});
    if (!o.methods.empty())
        std::erase_if(rows, [&](const RowSetting& row) {
            return std::find(o.methods.begin(), o.methods.end(), row.name) == o.methods.end();
        });
    return rows;
}

double median(std::vector<double> x) {
    std::nth_element(x.begin(), x.begin() + std::ssize(x) / 2, x.end());
    return x[x.size() / 2];
}

}  // namespace

void bench_video(vk::Device& device, const VideoOptions& o) {
    validate_sides(o.size, o.size, "bench");
    Study study(device, o);
    const auto rows = row_settings(study, o);
    const auto dense_method = [] { return ClipMethod{pattern_method(dense()), nullptr}; };
    std::vector<std::vector<Image>> exact;
    std::vector<double> dense_seconds;
    for (int i = 0; i < o.clips; ++i) {
        ClipMethod method = dense_method();
        auto clip = study.draw(i, method);
        exact.push_back(std::move(clip.frames));
        dense_seconds.push_back(clip.seconds);
    }
    const double dense_time = median(dense_seconds);
    const DitGrid grid = study.grid();
    std::string text = fmt::format(
        "{}, {}, model {}. {} frames of {}×{} ({}×{}×{} tokens), {} steps, guidance {}; {} clips, "
        "dense attention {:.3f} s a clip.\n\n"
        "| method | set to | pairs asked | pairs computed | layers computed | PSNR, dB | least | "
        "SSIM "
        "| s a clip | times as fast as dense |\n|---|---|---|---|---|---|---|---|---|---|\n",
        device.info().name, study.model().dtype == DType::f16 ? "fp16" : "fp32", study.model().hash,
        o.frames, o.size, o.size, grid[0], grid[1], grid[2], o.steps, o.cfg, o.clips, dense_time);
    fmt::print("{}", text);
    constexpr int kColumns = 8;
    std::vector<Image> strips;
    const auto add_strip = [&](const std::vector<Image>& clip) {
        for (int i = 0; i < kColumns; ++i)
            strips.push_back(clip[static_cast<size_t>(i) * clip.size() / kColumns]);
    };
    add_strip(exact[0]);
    std::string shown = "dense";
    double drawn = 1;  // the density whose rows the picture has
    for (const double density : o.densities)
        if (std::abs(density - 0.3) < std::abs(drawn - 0.3)) drawn = density;
    for (const RowSetting& row : rows) {
        try {
            std::vector<double> psnrs, ssims, seconds;
            double pairs = 0, layers = 0;
            for (int i = 0; i < o.clips; ++i) {
                ClipMethod method = row.make();
                const auto clip = study.draw(i, method);
                const Quality q = quality(clip.frames, exact[static_cast<size_t>(i)]);
                psnrs.push_back(q.psnr);
                ssims.push_back(q.ssim);
                seconds.push_back(clip.seconds);
                layers += method.cache ? method.cache->computed() : 1;
                pairs += method.attention ? method.attention->density(study.stream()) : 1;
                if (i == 0 && row.density == drawn) {
                    add_strip(clip.frames);
                    shown += fmt::format(", {} ({})", row.name, row.note);
                }
            }
            const auto mean = [&](const std::vector<double>& x) {
                return std::accumulate(x.begin(), x.end(), 0.0) / o.clips;
            };
            const double time = median(seconds);
            const std::string line = fmt::format(
                "| {} | {} | {:.2f} | {:.3f} | {:.2f} | {:.2f} | {:.2f} | {:.4f} | {:.3f} | {:.2f} "
                "|\n",
                row.name, row.note, row.density, pairs / o.clips, layers / o.clips, mean(psnrs),
                *std::min_element(psnrs.begin(), psnrs.end()), mean(ssims), time,
                dense_time / time);
            fmt::print("{}", line);
            text += line;
        } catch (const Cancelled&) {
            throw;
        } catch (const Error& error) {
            fmt::print("skipped: {} {}: {}\n", row.name, row.note, error.what());
        }
        std::fflush(stdout);
        // So far: the rest may be interrupted.
        if (!o.markdown.empty())
            save_text(o.markdown, fmt::format("{}\nThe picture's rows, \"{}\": {}.\n", text,
                                              prompt_of(0), shown));
        if (!o.picture.empty()) save_png(o.picture, tile_images(strips, kColumns));
    }
}

}  // namespace fovea::apps::bench
