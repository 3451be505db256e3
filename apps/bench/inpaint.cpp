#include "apps/bench/inpaint.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <functional>
#include <span>

#include "apps/app.h"
#include "apps/bench/cases.h"
#include "apps/bench/row.h"
#include "backend/error.h"
#include "pipelines/inpaint.h"
#include "pipelines/score.h"
#include "pipelines/text_to_image.h"

namespace fovea::apps::bench {
namespace {

constexpr size_t kShown = 32;  // cases of the sheet: a picture has at most 16384 pixels a side

enum class Method { inpaint, painta, pasted, smooth };

constexpr std::array<std::pair<Method, const char*>, 4> kMethods{
    {{Method::inpaint, "inpaint"},
     {Method::painta, "inpaint with PAIntA"},
     {Method::pasted, "pasted"},
     {Method::smooth, "smooth"}}};

/// A case as it is asked for.
struct Task {
    std::string name;
    Inpaint::Job job;
    Wanted object, all;  ///< of the crop around the hole, and of the picture
    Box crop;
};

// A square around the hole, a quarter longer than it.
Box around(const Box& hole) {
    const int side = std::max(hole.width(), hole.height()) * 5 / 4;
    const int left = (hole.left + hole.right - side) / 2, top = (hole.top + hole.bottom - side) / 2;
    return {left, top, left + side, top + side};
}

std::vector<Task> tasks_of(const InpaintOptions& o, const Concepts& concepts) {
    std::vector<Task> tasks;
    for (const Case& one : read_cases(o.cases, {.limit = o.limit, .kind = "object"})) {
        Mask hole = mask_of(one.region());
        if (o.boxes) hole = mask_of(hole.box(), hole.width, hole.height);
        Task task{.name = one.name,
                  .job = {.picture = one.picture(),
                          .hole = hole,
                          .prompt = one.target,
                          .seed = o.seed + tasks.size()},
                  .object = {},
                  .all = read_prompt(concepts, one.target),
                  .crop = around(hole.box())};
        const auto before = read_prompt(concepts, one.prompt).objects;
        for (const size_t object : task.all.objects)
            if (std::find(before.begin(), before.end(), object) == before.end())
                task.object.objects.push_back(object);
        require(!task.object.objects.empty(),
                "[bench] {}: \"{}\" names no other object than \"{}\"", one.name, one.target,
                one.prompt);
        tasks.push_back(std::move(task));
    }
    return tasks;
}

class Studio {
  public:
    Studio(vk::Device& device, const InpaintOptions& o)
        : options_(o),
          stream_(device),
          model_(Model::load(stream_, find_model(o.model),
                             choose_precision(device.info(), o.precision))),
          scorer_(stream_, find_model(o.model), model_.dtype) {}

    const Model& model() const { return model_; }
    const Concepts& concepts() const { return scorer_.concepts(); }
    std::vector<Seen> look(const std::vector<Image>& pictures) {
        return scorer_.look(stream_, pictures);
    }

    std::vector<Image> run(Method method, std::span<const Task> tasks,
                           const std::function<void(int, int)>& on_step) {
        std::vector<Image> pictures;
        if (method == Method::smooth)
            for (const Task& task : tasks)
                pictures.push_back(membrane(task.job.picture, task.job.hole));
        if (method == Method::pasted) pictures = paste(tasks, on_step);
        if (method == Method::inpaint || method == Method::painta) {
            Inpaint::Request request;
            set(request, on_step);
            request.painta = method == Method::painta;
            for (const Task& task : tasks) request.jobs.push_back(task.job);
            for (auto& result : Inpaint::run(stream_, model_, request))
                pictures.push_back(std::move(result.picture));
        }
        for (Image& picture : pictures) picture = as_saved(picture);
        return pictures;
    }

  private:
    void set(DenoiseRequest& request, const std::function<void(int, int)>& on_step) const {
        request.on_step = on_step;
        request.steps = options_.steps;
        request.cfg = options_.cfg;
        request.cancel = &interrupted();
    }

    // The target drawn from the same noise without the picture, its hole's part put into it.
    std::vector<Image> paste(std::span<const Task> tasks,
                             const std::function<void(int, int)>& on_step) {
        TextToImage::Request request;
        set(request, on_step);
        request.seeds.clear();
        request.width = tasks[0].job.picture.width;
        request.height = tasks[0].job.picture.height;
        for (const Task& task : tasks) {
            request.seeds.push_back(task.job.seed);
            request.each_prompt.push_back(task.job.prompt);
        }
        auto pictures = TextToImage::run(stream_, model_, request);
        for (size_t i = 0; i < tasks.size(); ++i)
            for (size_t v = 0; v < pictures[i].rgb.size(); ++v)
                if (!tasks[i].job.hole.hole[v / 3])
                    pictures[i].rgb[v] = tasks[i].job.picture.rgb[v];
        return pictures;
    }

    const InpaintOptions& options_;
    vk::Stream stream_;
    Model model_;
    Scorer scorer_;
};

bool keeps_known(const Image& picture, const Inpaint::Job& job) {
    for (size_t v = 0; v < picture.rgb.size(); ++v)
        if (!job.hole.hole[v / 3] && picture.rgb[v] != job.picture.rgb[v]) return false;
    return true;
}

/// Of one method: sums over the cases.
struct Figures {
    int in_crop = 0, in_picture = 0, kept = 0;
    double across = 0, nearby = 0, seconds = 0;
};

std::string row_of(const char* method, const Figures& f, size_t cases) {
    const auto n = static_cast<double>(cases);
    const auto share = [&](int count) {
        const double p = count / n;
        return fmt::format("{:.1f} ± {:.1f}", 100 * p, 100 * std::sqrt(p * (1 - p) / n));
    };
    return fmt::format("| {} | {} | {} | {}/{} | {:.2f} | {:.2f} | {:.2f} |\n", method,
                       share(f.in_crop), share(f.in_picture), f.kept, cases, f.across / n,
                       f.nearby / n, f.seconds / n);
}

}  // namespace

void bench_inpaint(vk::Device& device, const InpaintOptions& o) {
    Studio studio(device, o);
    const auto tasks = tasks_of(o, studio.concepts());
    std::vector<std::pair<Method, const char*>> methods;
    for (const auto& method : kMethods)
        if (o.methods.empty() ||
            std::find(o.methods.begin(), o.methods.end(), method.second) != o.methods.end())
            methods.push_back(method);
    require(!methods.empty(),
            "[bench] --methods {} found, expected inpaint, \"inpaint with "
            "PAIntA\", pasted or smooth",
            o.methods[0]);
    std::vector<Figures> figures(methods.size());
    std::vector<std::vector<Image>> columns(methods.size());
    Json details = Json::array();
    Figures untouched;
    for (const Task& task : tasks) {
        const Seam seam = seam_of(task.job.picture, task.job.hole);
        untouched.across += seam.across;
        untouched.nearby += seam.nearby;
        details.push_back({{"picture", task.name},
                           {"prompt", task.job.prompt},
                           {"seed", task.job.seed},
                           {"across", seam.across},
                           {"nearby", seam.nearby}});
    }
    {
        Progress progress("inpaint");
        const auto total = static_cast<int>(tasks.size() * methods.size());
        int done = 0;
        constexpr size_t kAtOnce = Inpaint::kMaxBatch;
        for (size_t begin = 0; begin < tasks.size(); begin += kAtOnce)
            for (size_t m = 0; m < methods.size(); ++m) {
                const auto part =
                    std::span(tasks).subspan(begin, std::min(kAtOnce, tasks.size() - begin));
                const auto start = std::chrono::steady_clock::now();
                const auto pictures = studio.run(methods[m].first, part, [&](int step, int steps) {
                    progress.update(done + static_cast<int>(part.size()) * step / steps, total);
                });
                Figures& f = figures[m];
                f.seconds += seconds_since(start);
                std::vector<Image> crops;
                for (size_t i = 0; i < part.size(); ++i)
                    crops.push_back(crop(pictures[i], part[i].crop));
                const auto whole = studio.look(pictures);
                for (size_t i = 0; i < part.size(); ++i) {
                    const auto near = studio.look({crops[i]})[0];
                    const bool in_crop = *judge(part[i].object, near).objects,
                               in_picture = *judge(part[i].all, whole[i]).objects,
                               kept = keeps_known(pictures[i], part[i].job);
                    const Seam seam = seam_of(pictures[i], part[i].job.hole);
                    f.in_crop += in_crop;
                    f.in_picture += in_picture;
                    f.kept += kept;
                    f.across += seam.across;
                    f.nearby += seam.nearby;
                    details[begin + i][methods[m].second] = {{"in_crop", in_crop},
                                                             {"in_picture", in_picture},
                                                             {"known_identical", kept},
                                                             {"across", seam.across},
                                                             {"nearby", seam.nearby}};
                    if (columns[m].size() < kShown) columns[m].push_back(pictures[i]);
                }
                done += static_cast<int>(part.size());
                progress.update(done, total);
            }
    }
    std::string text = fmt::format(
        "{}, {}, model {}. {} cases of {}, {} steps, guidance {}, holes {}. Recognised: the object "
        "asked for, in a crop around the hole; all that the prompt names, in the picture; ± is one "
        "standard error. Gradients in steps of 1/255: across the hole's edge, and up to four "
        "pixels from it; of the untouched pictures {:.2f} and {:.2f}.\n\n"
        "| method | object recognised, % | all objects recognised, % | known pixels identical | "
        "gradient across | nearby | s |\n|---|---|---|---|---|---|---|\n",
        device.info().name, studio.model().dtype == DType::f16 ? "fp16" : "fp32",
        studio.model().hash, tasks.size(), o.cases, o.steps, o.cfg,
        o.boxes ? "boxes around the objects" : "the objects grown by 16 pixels",
        untouched.across / static_cast<double>(tasks.size()),
        untouched.nearby / static_cast<double>(tasks.size()));
    for (size_t m = 0; m < methods.size(); ++m)
        text += row_of(methods[m].second, figures[m], tasks.size());
    fmt::print("{}", text);
    if (!o.markdown.empty()) save_text(o.markdown, text);
    if (!o.json.empty()) {
        Json rows = Json::object();
        for (size_t m = 0; m < methods.size(); ++m) {
            const Figures& f = figures[m];
            const auto n = static_cast<double>(tasks.size());
            rows[methods[m].second] = {
                {"object_recognised", f.in_crop}, {"all_recognised", f.in_picture},
                {"known_identical", f.kept},      {"across", f.across / n},
                {"nearby", f.nearby / n},         {"seconds", f.seconds / n}};
        }
        save_text(o.json, fmt::format("{}\n", Json{{"device", device.info().name},
                                                   {"model", studio.model().hash},
                                                   {"cases", tasks.size()},
                                                   {"steps", o.steps},
                                                   {"cfg", o.cfg},
                                                   {"boxes", o.boxes},
                                                   {"rows", rows},
                                                   {"each", details}}
                                                  .dump(1)));
    }
    if (o.pictures.empty()) return;
    std::vector<Image> sheet;
    for (size_t i = 0; i < std::min(kShown, tasks.size()); ++i) {
        Image dimmed = tasks[i].job.picture;
        for (size_t v = 0; v < dimmed.rgb.size(); ++v)
            if (tasks[i].job.hole.hole[v / 3]) dimmed.rgb[v] *= 0.6f;
        sheet.push_back(std::move(dimmed));
        for (const auto& column : columns) sheet.push_back(column[i]);
    }
    save_png(o.pictures, tile_images(sheet, static_cast<int>(methods.size()) + 1));
}

}  // namespace fovea::apps::bench
