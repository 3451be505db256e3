#include "apps/bench/edit.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <map>

#include "apps/app.h"
#include "apps/bench/cases.h"
#include "apps/bench/row.h"
#include "backend/error.h"
#include "backend/ops/elementwise.h"
#include "pipelines/lens.h"
#include "pipelines/score.h"
#include "vision/prompt_words.h"
#include "vision/transfer.h"

namespace fovea::apps::bench {
namespace {

/// SDEdit's strength trades what is asked for against what is kept; drawn anew is its strength 1.
struct Method {
    const char* name;
    float strength;
};
constexpr size_t kShown = 32;  // cases of the sheet: a picture has at most 16384 pixels a side

constexpr std::array<Method, 5> kMethods{{{"edit", 0},
                                          {"drawn anew", 1},
                                          {"SDEdit 0.5", 0.5f},
                                          {"SDEdit 0.7", 0.7f},
                                          {"SDEdit 0.85", 0.85f}}};
constexpr const char* kRoundTrip = "round trip";

bool is_white(const Image& mask, double x, double y) {
    const auto at = [](double part, int count) {
        return std::clamp(static_cast<int>(part * count), 0, count - 1);
    };
    return mask.rgb[size_t{3} *
                    (static_cast<size_t>(at(y, mask.height)) * static_cast<size_t>(mask.width) +
                     static_cast<size_t>(at(x, mask.width)))] > 0.5f;
}

/// PSNR of the pixels that the region leaves out; 0 where it leaves out none.
double psnr_outside(const Image& a, const Image& b, const Image& region) {
    double sum = 0, count = 0;
    for (size_t i = 0; i < a.rgb.size(); ++i) {
        if (region.rgb[i] > 0.5f) continue;
        const double off = double{std::clamp(a.rgb[i], 0.0f, 1.0f)} - b.rgb[i];
        sum += off * off;
        ++count;
    }
    return count == 0 ? 0 : -10 * std::log10(std::max(sum / count, 1e-10));
}

struct Studio {
    Studio(vk::Device& device, const EditOptions& o)
        : stream(device),
          model(Model::load(stream, find_model(o.model),
                            choose_precision(device.info(), o.precision))),
          scorer(stream, find_model(o.model), model.dtype) {}

    vk::Stream stream;
    Model model;
    Scorer scorer;

    Shape latent(const Edit::Request& r) const {
        return {r.height / Autoencoder::kDown, r.width / Autoencoder::kDown,
                model.dit.config().latent_channels};
    }
    /// From noise, or from the picture mixed with noise at the last time up to `strength`.
    Image draw(const Edit::Request& r, uint64_t seed, float strength) {
        DenoiseRequest request;
        request.prompt = r.target;
        request.steps = r.steps;
        request.cfg = r.cfg;
        request.cancel = &interrupted();
        const Denoiser run(stream, model, request, latent(r), {{seed}});
        if (strength >= 1) return run.decode(run.run())[0];
        std::vector<float> times = flow_times(r.steps);
        std::erase_if(times, [&](float t) { return t > strength; });
        const Tensor z0 = convert(
            stream, model.autoencoder.encode(stream, to_device(stream, r.frames, model.dtype)),
            DType::f32);
        Tensor z = linear_combination(stream, {{1 - times[0], z0}, {times[0], run.start()}});
        FlowSampler sampler(request.sampler, times);
        const auto steps = static_cast<int>(times.size()) - 1;
        for (int i = 0; i < steps; ++i) {
            if (interrupted()) throw Cancelled();
            z = sampler.step(stream, z, i, [&](const Tensor& at, float t) {
                return run.velocity(at, {.step = i, .steps = steps, .t = t});
            });
            stream.wait();
        }
        return run.decode(z)[0];
    }
};

/// Of one method: sums over the cases of a kind.
struct Figures {
    int cases = 0, recognised = 0, all = 0, kept = 0;
    double psnr = 0, seconds = 0;
};

void count(Figures& f, const Verdict& verdict, const std::string& kind, double psnr,
           double seconds) {
    const auto& asked = kind == "object"       ? verdict.objects
                        : kind == "background" ? verdict.color
                                               : verdict.style;
    ++f.cases;
    f.recognised += asked.value_or(false);
    f.all += verdict.all();
    f.kept += psnr >= 25;
    f.psnr += psnr;
    f.seconds += seconds;
}

std::string row_of(const std::string& method, const std::string& kind, const Figures& f) {
    const auto share = [&](int count) { return 100.0 * count / f.cases; };
    return fmt::format("| {} | {} | {} | {:.1f} % | {:.1f} % | {:.1f} | {:.1f} % | {:.2f} |\n",
                       method, kind, f.cases, share(f.recognised), share(f.all), f.psnr / f.cases,
                       share(f.kept), f.seconds / f.cases);
}

}  // namespace

void bench_lens(vk::Device& device, const EditOptions& o) {
    const auto cases = read_cases(o.cases, o.limit);
    Studio studio(device, o);
    const int64_t layers = studio.model.dit.config().layers;
    std::vector<int> hits(static_cast<size_t>(layers) + 1, 0);
    int objects = 0;
    Progress progress("lens");
    for (size_t i = 0; i < cases.size(); ++i) {
        const Case& one = cases[i];
        Lens::Request request;
        request.prompt = one.prompt;
        request.width = one.picture.width;
        request.height = one.picture.height;
        request.picture = one.picture;
        request.taps.by_layer = true;
        request.cancel = &interrupted();
        const auto result = Lens::run(studio.stream, studio.model, request);
        for (const Case::Object& object : one.objects) {
            const auto places = find_phrase(studio.model.tokenizer, result.words, object.name);
            std::vector<float> mean(static_cast<size_t>(result.rows * result.columns), 0);
            const auto points = [&](const std::vector<float>& heat) {
                const auto peak = std::max_element(heat.begin(), heat.end()) - heat.begin();
                const auto middle = [](int64_t at, int64_t count) {
                    return (static_cast<double>(at) + 0.5) / static_cast<double>(count);
                };
                return is_white(object.mask, middle(peak % result.columns, result.columns),
                                middle(peak / result.columns, result.rows));
            };
            for (const auto& map : result.maps) {
                const auto heat = result.heat(map, places);
                hits[static_cast<size_t>(map.layer)] += points(heat);
                for (size_t t = 0; t < mean.size(); ++t) mean[t] += heat[t];
            }
            hits.back() += points(mean);
            ++objects;
        }
        progress.update(static_cast<int>(i) + 1, static_cast<int>(cases.size()));
    }
    std::string text = fmt::format(
        "{}, model {}. {} objects of {} pictures, times {:.1f}, {:.1f}, {:.1f}.\n\n| layers | peak "
        "inside the object's mask |\n|---|---|\n",
        device.info().name, studio.model.hash, objects, cases.size(), Lens::kReadingTimes[0],
        Lens::kReadingTimes[1], Lens::kReadingTimes[2]);
    for (size_t layer = 0; layer < hits.size(); ++layer)
        text += fmt::format("| {} | {:.1f} % |\n",
                            layer + 1 < hits.size() ? fmt::format("{}", layer) : "mean of all",
                            100.0 * hits[layer] / objects);
    fmt::print("{}", text);
    if (!o.markdown.empty()) save_text(o.markdown, text);
}

void bench_edit(vk::Device& device, const EditOptions& o) {
    const auto cases = read_cases(o.cases, o.limit);
    Studio studio(device, o);
    const auto& v = o.values;
    std::string text = fmt::format(
        "{}, {}, model {}. {} edits, {} steps, guidance {}; edit: strength {}, keep-cross {}, "
        "keep-self {}, mask {}{}.\n\n",
        device.info().name, studio.model.dtype == DType::f16 ? "fp16" : "fp32", studio.model.hash,
        cases.size(), v.steps, v.cfg, v.strength, v.keep_cross, v.keep_self, v.mask,
        v.exchange ? ", exchange" : "");
    const auto wants = [&](const std::string& method) {
        return o.methods.empty() ||
               std::find(o.methods.begin(), o.methods.end(), method) != o.methods.end();
    };
    std::map<std::pair<size_t, std::string>, Figures> figures;  // by method and kind
    double back = 0, back_least = INFINITY, decoded = 0, inverted = 0;
    std::vector<Image> sheet;
    {
        Progress progress("edit");
        for (size_t i = 0; i < cases.size(); ++i) {
            const Case& one = cases[i];
            Edit::Request request = v;
            request.frames = {one.picture};
            request.width = one.picture.width;
            request.height = one.picture.height;
            request.source = one.prompt;
            request.target = one.target;
            request.cancel = &interrupted();
            const Wanted wanted = read_prompt(studio.scorer.concepts(), one.target);
            sheet.push_back(one.picture);
            for (size_t m = 0; m < kMethods.size(); ++m) {
                if (!wants(kMethods[m].name)) continue;
                const auto start = std::chrono::steady_clock::now();
                const Image picture =
                    m == 0 ? Edit::run(studio.stream, studio.model, request).frames[0]
                           : studio.draw(request, i, kMethods[m].strength);
                const double seconds =
                    std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
                const Verdict verdict =
                    judge(wanted, studio.scorer.look(studio.stream, {picture})[0]);
                const double outside = psnr_outside(picture, one.picture, one.region);
                for (const std::string& kind : {one.kind, std::string("all")})
                    count(figures[{m, kind}], verdict, one.kind, outside, seconds);
                sheet.push_back(picture);
            }
            if (wants(kRoundTrip)) {
                const auto trip = Edit::round_trip(studio.stream, studio.model, request);
                const double db = psnr(trip.frames[0], one.picture);
                back += db;
                back_least = std::min(back_least, db);
                decoded += psnr(trip.decoded[0], one.picture);
                inverted += psnr(trip.frames[0], trip.decoded[0]);
            }
            progress.update(static_cast<int>(i) + 1, static_cast<int>(cases.size()));
        }
    }
    text +=
        "| method | kind | cases | recognised | all the prompt names | PSNR outside, dB | of 25 dB "
        "and more | s |\n|---|---|---|---|---|---|---|---|\n";
    for (const auto& [key, f] : figures) text += row_of(kMethods[key.first].name, key.second, f);
    const auto n = static_cast<double>(cases.size());
    if (wants(kRoundTrip))
        text += fmt::format(
            "\nInverted and drawn again with the source prompt: {:.1f} dB in the mean, {:.1f} at "
            "least; the autoencoder alone {:.1f} dB, and against that {:.1f} dB.\n",
            back / n, back_least, decoded / n, inverted / n);
    fmt::print("{}", text);
    if (!o.markdown.empty()) save_text(o.markdown, text);
    if (o.pictures.empty()) return;
    const size_t columns = sheet.size() / cases.size();
    sheet.resize(columns * std::min(kShown, cases.size()));
    save_png(o.pictures, tile_images(sheet, static_cast<int>(columns)));
}

}  // namespace fovea::apps::bench
