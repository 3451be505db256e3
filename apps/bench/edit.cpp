#include "apps/bench/edit.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <map>
#include <numbers>
#include <string_view>

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
    float strength;  ///< 0: Edit
    const char* shared_frames = "all";

    bool of_clips_alone() const { return shared_frames != std::string_view("all"); }
};
constexpr size_t kShown = 32;  // cases of the sheet, which has at most kMaxImageSide

constexpr std::array<Method, 7> kMethods{{{"edit", 0},
                                          {"edit first+previous", 0, "first,previous"},
                                          {"edit none", 0, "none"},
                                          {"drawn anew", 1},
                                          {"SDEdit 0.5", 0.5f},
                                          {"SDEdit 0.7", 0.7f},
                                          {"SDEdit 0.85", 0.85f}}};
constexpr const char* kRoundTrip = "round trip";

size_t pixel(const Image& image, int x, int y) {
    return size_t{3} *
           (static_cast<size_t>(y) * static_cast<size_t>(image.width) + static_cast<size_t>(x));
}

bool wants(const EditOptions& o, const std::string& method) {
    return o.methods.empty() ||
           std::find(o.methods.begin(), o.methods.end(), method) != o.methods.end();
}

std::vector<Method> methods_of(const EditOptions& o, bool clips) {
    std::vector<Method> methods;
    std::vector<std::string> names{kRoundTrip};
    for (const Method& method : kMethods) {
        if (method.of_clips_alone() && !clips) continue;
        names.push_back(method.name);
        if (wants(o, method.name)) methods.push_back(method);
    }
    for (const std::string& name : o.methods)
        require(std::find(names.begin(), names.end(), name) != names.end(),
                "[bench] --methods {} found, expected of {}: {}", name,
                clips ? "clips" : "pictures", fmt::join(names, ", "));
    return methods;
}

bool is_inside(const Mask& mask, double x, double y) {
    const auto at = [](double part, int count) {
        return std::clamp(static_cast<int>(part * count), 0, count - 1);
    };
    return mask.at(at(x, mask.width), at(y, mask.height)) != 0;
}

double mean_psnr(const std::vector<Image>& a, const std::vector<Image>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += psnr(a[i], b[i]);
    return sum / static_cast<double>(a.size());
}

/// Mean change from a frame to the next, of 255, of what the regions hold, followed along the path
/// (warping error, Lai et al., arXiv 1808.00449, with the known motion instead of an optical flow
/// and absolute values). Where the path does not end within the next frame's region nothing counts.
double warping_error(const std::vector<Image>& frames, const Case& one) {
    double sum = 0, count = 0;
    const double width = frames[0].width, height = frames[0].height;
    for (size_t i = 0; i + 1 < frames.size(); ++i) {
        const Case::Place &from = one.path[i], &to = one.path[i + 1];
        const double scale = to.size / from.size,
                     angle = (to.degrees - from.degrees) * std::numbers::pi / 180,
                     cosine = scale * std::cos(angle), sine = scale * std::sin(angle);
        for (int y = 0; y < frames[0].height; ++y)
            for (int x = 0; x < frames[0].width; ++x) {
                const size_t at = pixel(frames[i], x, y);
                if (one.regions[i].rgb[at] <= 0.5f) continue;
                const double dx = (x + 0.5) / width - from.x, dy = (y + 0.5) / height - from.y,
                             u = (to.x + cosine * dx - sine * dy) * width - 0.5,
                             v = (to.y + sine * dx + cosine * dy) * height - 0.5;
                if (u < 0 || v < 0 || u > width - 1 || v > height - 1) continue;
                const int left = static_cast<int>(u), top = static_cast<int>(v),
                          right = std::min(left + 1, frames[0].width - 1),
                          bottom = std::min(top + 1, frames[0].height - 1);
                const double across = u - left, down = v - top;
                const Image &next = frames[i + 1], &region = one.regions[i + 1];
                if (region.rgb[pixel(region, across < 0.5 ? left : right,
                                     down < 0.5 ? top : bottom)] <= 0.5f)
                    continue;
                for (size_t c = 0; c < 3; ++c) {
                    const auto of = [&](int column, int row) {
                        return double{next.rgb[pixel(next, column, row) + c]};
                    };
                    const double value =
                        std::lerp(std::lerp(of(left, top), of(right, top), across),
                                  std::lerp(of(left, bottom), of(right, bottom), across), down);
                    sum += std::abs(value - double{frames[i].rgb[at + c]});
                    ++count;
                }
            }
    }
    return count == 0 ? 0 : 255 * sum / count;
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

    std::vector<Image> run(const Method& method, Edit::Request request, uint64_t seed) {
        if (method.strength > 0) return draw(request, seed, method.strength);
        request.shared_frames = method.shared_frames;
        return Edit::run(stream, model, request).frames;
    }

    /// From noise, or from what is given mixed with noise at the last time up to `strength`.
    std::vector<Image> draw(const Edit::Request& r, uint64_t seed, float strength) {
        DenoiseRequest request;
        request.prompt = r.target;
        request.steps = r.steps;
        request.cfg = r.cfg;
        request.cancel = &interrupted();
        const bool clip = r.frames.size() > 1;
        const Shape frames =
            ClipShape{
                .frames = static_cast<int>(r.frames.size()), .width = r.width, .height = r.height}
                .latents(model);
        const Shape latent = clip ? frames : Shape(frames.begin() + 1, frames.end());
        const Denoiser run(stream, model, request, latent, {{seed}});
        const auto decode = [&](const Tensor& z) { return run.decode_singly(z.reshape(frames)); };
        if (strength >= 1) return decode(run.run());
        std::vector<float> times = flow_times(r.steps, clip ? model.dit.config().clip_shift : 1);
        std::erase_if(times, [&](float t) { return t > strength; });
        require(times.size() > 1,
                "[bench] {} steps found, SDEdit {} begins none of them: give more --steps", r.steps,
                strength);
        const Tensor z0 = convert(
            stream, model.autoencoder.encode(stream, to_device(stream, r.frames, model.dtype)),
            DType::f32);
        const Tensor noise = run.start();
        Tensor z = linear_combination(
            stream, {{1 - times[0], z0.reshape(noise.shape())}, {times[0], noise}});
        FlowSampler sampler(request.sampler, times);
        const auto steps = static_cast<int>(times.size()) - 1;
        for (int i = 0; i < steps; ++i) {
            if (interrupted()) throw Cancelled();
            z = sampler.step(stream, z, i, [&](const Tensor& at, float t) {
                return run.velocity(at, {.step = i, .steps = steps, .t = t});
            });
            stream.wait();
        }
        return decode(z);
    }
};

/// Whether what the edit asks for is seen.
bool is_done(const Verdict& verdict, const std::string& kind) {
    const auto& asked = kind == "object"       ? verdict.objects
                        : kind == "background" ? verdict.color
                                               : verdict.style;
    return asked.value_or(false);
}

/// Of one method: sums over the cases of a kind.
struct Figures {
    int cases = 0, recognised = 0, all = 0, kept = 0;
    double of_frames = 0, psnr = 0, seconds = 0;
    double warping = 0, source_warping = 0;  ///< of clips
};

/// verdicts: of the result's frames; of them the middle one stands for a clip.
void count(Figures& f, const Case& one, const std::vector<Image>& result,
           const std::vector<Verdict>& verdicts, double seconds) {
    const size_t frames = result.size();
    const Verdict& middle = verdicts[frames / 2];
    double psnr = 0;
    int done = 0;
    for (size_t i = 0; i < frames; ++i) {
        psnr +=
            psnr_outside(result[i], one.frames[i], one.regions[i]) / static_cast<double>(frames);
        done += is_done(verdicts[i], one.kind);
    }
    ++f.cases;
    f.recognised += is_done(middle, one.kind);
    f.of_frames += done / static_cast<double>(frames);
    f.all += middle.all();
    f.kept += psnr >= 25;
    f.psnr += psnr;
    f.seconds += seconds;
    if (!one.is_clip()) return;
    f.warping += warping_error(result, one);
    f.source_warping += warping_error(one.frames, one);
}

std::string head_of(bool clips) {
    return fmt::format(
        "| method | kind | cases | recognised |{} all the prompt names | PSNR outside, dB | of 25 "
        "dB and more |{} s |\n|---|---|---|---|---|---|---|---|{}\n",
        clips ? " in all frames |" : "", clips ? " warping error (the source's) |" : "",
        clips ? "---|---|" : "");
}

std::string row_of(const std::string& method, const std::string& kind, const Figures& f,
                   bool clips) {
    const auto share = [&](double sum) { return 100 * sum / f.cases; };
    return fmt::format(
        "| {} | {} | {} | {:.1f} % |{} {:.1f} % | {:.1f} | {:.1f} % |{} {:.2f} |\n", method, kind,
        f.cases, share(f.recognised), clips ? fmt::format(" {:.1f} % |", share(f.of_frames)) : "",
        share(f.all), f.psnr / f.cases, share(f.kept),
        clips ? fmt::format(" {:.2f} ({:.2f}) |", f.warping / f.cases, f.source_warping / f.cases)
              : "",
        f.seconds / f.cases);
}

// What it costs to read: passes of single pictures and of a batch, with guidance, which three ways
// take in turn, so that what else runs slows all of them; the best of each.
std::string reading_times(Studio& studio, const std::string& prompt) {
    const auto& device = studio.stream.device().info();
    const bool cpu = device.type == vk::DeviceType::cpu;
    const int repeats = cpu ? 5 : 100;
    const Model& model = studio.model;
    const Shape latent{32, 32, model.dit.config().latent_channels};
    const DitGrid grid = model.dit.grid({1, latent[0], latent[1], latent[2]});
    std::string text =
        "\n| pictures of 256×256, guidance | without hooks, ms a pass | hooks that are empty | "
        "read | the same bits |\n|---|---|---|---|---|\n";
    for (const size_t pictures : {size_t{1}, size_t{16}}) {
        if (cpu && pictures > 1) continue;
        DenoiseRequest request;
        request.prompt = prompt;
        Taps taps(model.dit, {.grid = grid,
                              .samples = static_cast<int64_t>(pictures),
                              .length = model.text.config().length});
        const std::array<MethodHooks, 3> ways{
            MethodHooks{}, [](const Evaluation&) { return DitHooks{}; },
            [&](const Evaluation& at) { return taps.around({}, at.step); }};
        std::array<double, 3> best{INFINITY, INFINITY, INFINITY};
        std::array<std::vector<float>, 3> results;
        for (int i = 0; i < repeats; ++i)
            for (size_t way = 0; way < ways.size(); ++way) {
                const Denoiser run(studio.stream, model, request, latent,
                                   std::vector<uint64_t>(pictures, 0), ways[way]);
                const Evaluation at{.step = 0, .steps = 1, .t = 0.5f};
                const Tensor z = run.start();
                run.velocity(z, at);  // makes the text's part
                studio.stream.wait();
                const auto start = std::chrono::steady_clock::now();
                const Tensor v = run.velocity(z, at);
                studio.stream.wait();
                best[way] = std::min(best[way], seconds_since(start));
                results[way] = to_host(studio.stream, v);
            }
        text += fmt::format("| {} | {:.2f} | {:.2f} | {:.2f} | {} |\n", pictures, 1000 * best[0],
                            1000 * best[1], 1000 * best[2],
                            results[0] == results[1] && results[0] == results[2] ? "yes" : "no");
    }
    return text;
}

}  // namespace

void bench_lens(vk::Device& device, const EditOptions& o) {
    const auto cases = read_cases(o.cases, {.limit = o.limit});
    Studio studio(device, o);
    const int64_t layers = studio.model.dit.config().layers;
    std::vector<int> hits(static_cast<size_t>(layers) + 1, 0);
    int objects = 0;
    Progress progress("lens");
    for (size_t i = 0; i < cases.size(); ++i) {
        const Case& one = cases[i];
        Lens::Request request;
        request.prompt = one.prompt;
        request.width = one.picture().width;
        request.height = one.picture().height;
        request.picture = one.picture();
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
                return is_inside(object.mask, middle(peak % result.columns, result.columns),
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
    text += reading_times(studio, cases[0].prompt);
    fmt::print("{}", text);
    if (!o.markdown.empty()) save_text(o.markdown, text);
}

void bench_edit(vk::Device& device, const EditOptions& o) {
    const auto cases = read_cases(o.cases, {.limit = o.limit, .clips = true});
    const bool clips = cases[0].is_clip();
    const auto methods = methods_of(o, clips);
    const bool round_trip = wants(o, kRoundTrip);
    Studio studio(device, o);
    const auto& v = o.values;
    std::string text = fmt::format(
        "{}, {}, model {}. {} edits{}, {} steps, guidance {}; edit: strength {}, keep-cross {}, "
        "keep-self {}, mask {}{}.\n\n",
        device.info().name, studio.model.dtype == DType::f16 ? "fp16" : "fp32", studio.model.hash,
        cases.size(),
        clips ? fmt::format(" of clips of {} frames of {}×{}", cases[0].frames.size(),
                            cases[0].picture().width, cases[0].picture().height)
              : "",
        v.steps, v.cfg, v.strength, v.keep_cross, v.keep_self, v.mask,
        v.exchange ? ", exchange" : "");
    std::map<std::pair<size_t, std::string>, Figures> figures;  // by method and kind
    double back = 0, back_least = INFINITY, decoded = 0, inverted = 0;
    std::vector<Image> sheet;
    const auto show = [&](const std::vector<Image>& frames) {
        sheet.push_back(tile_images(frames, static_cast<int>(frames.size())));
    };
    {
        Progress progress("edit");
        for (size_t i = 0; i < cases.size(); ++i) {
            const Case& one = cases[i];
            Edit::Request request = v;
            request.frames = one.frames;
            request.width = one.picture().width;
            request.height = one.picture().height;
            request.source = one.prompt;
            request.target = one.target;
            request.cancel = &interrupted();
            const Wanted wanted = read_prompt(studio.scorer.concepts(), one.target);
            show(one.frames);
            for (size_t m = 0; m < methods.size(); ++m) {
                const auto start = std::chrono::steady_clock::now();
                const auto result = studio.run(methods[m], request, i);
                const double seconds = seconds_since(start);
                std::vector<Verdict> verdicts;
                for (const Seen& seen : studio.scorer.look(studio.stream, result))
                    verdicts.push_back(judge(wanted, seen));
                for (const std::string& kind : {one.kind, std::string("all")})
                    count(figures[{m, kind}], one, result, verdicts, seconds);
                show(result);
            }
            if (round_trip) {
                const auto trip = Edit::round_trip(studio.stream, studio.model, request);
                const double db = mean_psnr(trip.frames, one.frames);
                back += db;
                back_least = std::min(back_least, db);
                decoded += mean_psnr(trip.decoded, one.frames);
                inverted += mean_psnr(trip.frames, trip.decoded);
            }
            progress.update(static_cast<int>(i) + 1, static_cast<int>(cases.size()));
        }
    }
    if (!methods.empty()) text += head_of(clips);
    for (const auto& [key, f] : figures)
        text += row_of(methods[key.first].name, key.second, f, clips);
    const auto n = static_cast<double>(cases.size());
    if (round_trip)
        text += fmt::format(
            "\nInverted and drawn again with the source prompt: {:.1f} dB in the mean, {:.1f} at "
            "least; the autoencoder alone {:.1f} dB, and against that {:.1f} dB.\n",
            back / n, back_least, decoded / n, inverted / n);
    fmt::print("{}", text);
    if (!o.markdown.empty()) save_text(o.markdown, text);
    if (o.pictures.empty()) return;
    // Of a case beside each other pictures, beneath each other clips.
    const size_t results = 1 + methods.size(), rows = clips ? results : 1,
                 most = kMaxImageSide / (rows * static_cast<size_t>(sheet[0].height + 2));
    sheet.resize(results * std::min({kShown, most, cases.size()}));
    save_png(o.pictures, tile_images(sheet, clips ? 1 : static_cast<int>(results)));
}

}  // namespace fovea::apps::bench
