#include "apps/bench/boxes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <random>

#include "apps/app.h"
#include "apps/bench/row.h"
#include "backend/error.h"
#include "pipelines/score.h"
#include "pipelines/text_to_image.h"
#include "vision/mask.h"

namespace fovea::apps::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kSide = 256, kGap = 8, kColumns = 10;  // pixels; pictures in a line of the sheet
constexpr size_t kShown = 300;  // layouts of the sheet: a picture has at most 16384 pixels a side
constexpr std::array<float, 3> kAsked{1, 0, 0}, kSeen{0, 1, 0};

struct Scene {
    std::string prompt;
    std::vector<LayoutBox> boxes;  ///< an object each
    std::vector<size_t> objects;
};

// The engine's numbers are the standard's; those of its distributions are each library's own.
class Chance {
  public:
    explicit Chance(uint64_t seed) : engine_(seed) {}
    size_t below(size_t count) { return engine_() % count; }
    int within(int least, int most) {
        return least + static_cast<int>(below(static_cast<size_t>(most - least + 1)));
    }

  private:
    std::mt19937_64 engine_;
};

LayoutBox random_box(Chance& chance, const std::string& name, int least, int most) {
    const int width = chance.within(least, most),
              height = std::clamp(width * chance.within(80, 125) / 100, least, most),
              x = chance.within(0, kSide - width), y = chance.within(0, kSide - height);
    return {name, x, y, x + width, y + height};
}

bool apart(const LayoutBox& a, const LayoutBox& b) {
    return a.x1 + kGap <= b.x0 || b.x1 + kGap <= a.x0 || a.y1 + kGap <= b.y0 || b.y1 + kGap <= a.y0;
}

// One object and two by turns, as large as the model has seen one and two.
std::vector<Scene> random_scenes(const Concepts& concepts, int count, uint64_t seed) {
    Chance chance(seed);
    std::vector<Scene> scenes;
    while (std::ssize(scenes) < count) {
        const bool pair = scenes.size() % 2 == 1;
        Scene scene;
        for (int i = 0; i < (pair ? 2 : 1); ++i)
            scene.objects.push_back(chance.below(concepts.objects.size()));
        do {
            scene.boxes.clear();
            for (const size_t object : scene.objects)
                scene.boxes.push_back(
                    random_box(chance, concepts.objects[object], pair ? 80 : 96, pair ? 120 : 192));
        } while (pair && !apart(scene.boxes[0], scene.boxes[1]));
        for (const auto& box : scene.boxes)
            scene.prompt += fmt::format("{}a {}", scene.prompt.empty() ? "" : " and ", box.name);
        scene.prompt += fmt::format(" on a {} background",
                                    concepts.colors[chance.below(concepts.colors.size())]);
        // Names that hold another's, or a colour, read as something else.
        const bool same = pair && scene.objects[0] == scene.objects[1];
        if (!same && read_prompt(concepts, scene.prompt).objects == scene.objects)
            scenes.push_back(std::move(scene));
    }
    return scenes;
}

void outline(Image& picture, const LayoutBox& box, const std::array<float, 3>& color) {
    const auto put = [&](int x, int y) {
        const auto at = static_cast<size_t>(y * picture.width + x) * 3;
        std::copy(color.begin(), color.end(),
                  picture.rgb.begin() + static_cast<std::ptrdiff_t>(at));
    };
    for (const int off : {0, 1}) {
        for (int x = box.x0; x < box.x1; ++x)
            for (const int y : {box.y0 + off, box.y1 - 1 - off}) put(x, y);
        for (int y = box.y0; y < box.y1; ++y)
            for (const int x : {box.x0 + off, box.x1 - 1 - off}) put(x, y);
    }
}

/// A picture of training/edit_cases.py.
struct KnownPicture {
    std::string prompt;
    Image picture;
    std::vector<size_t> objects;
    std::vector<Image> masks;  ///< of each object
};

Box box_of(const Image& mask) {
    return mask_of(mask).box();
}

LayoutBox layout_box(const std::string& name, const Box& box) {
    return {name, box.left, box.top, box.right, box.bottom};
}

// Mean square difference at a subject that was asked into a box, in dB.
double likeness_of(const Image& drawn, const KnownPicture& known, const LayoutBox& box) {
    const Box from = box_of(known.masks[0]);
    const Image found = crop(drawn, {box.x0, box.y0, box.x1, box.y1}),
                asked = resize(crop(known.picture, from), found.width, found.height),
                share = resize(crop(known.masks[0], from), found.width, found.height);
    double sum = 0, weights = 0;
    for (size_t i = 0; i < found.rgb.size(); ++i) {
        const double difference = found.rgb[i] - asked.rgb[i];
        sum += share.rgb[i] * difference * difference;
        weights += share.rgb[i];
    }
    return -10 * std::log10(std::max(sum / weights, 1e-10));
}

/// Sums over the objects of some pictures.
struct Figures {
    int pictures = 0, objects = 0, half = 0, recognised = 0, backgrounds = 0, styles = 0;
    double iou = 0, likeness = 0;

    void add(double overlap) {
        ++objects;
        iou += overlap;
        half += overlap >= 0.5;
    }
    double mean() const { return objects == 0 ? 0 : iou / objects; }
    double share(int count, int of) const { return of == 0 ? 0 : 100.0 * count / of; }
};

class Study {
  public:
    Study(vk::Device& device, const BoxesOptions& options)
        : options_(options),
          stream_(device),
          model_(Model::load(stream_, find_model(options.model),
                             choose_precision(device.info(), options.precision))),
          scorer_(stream_, find_model(options.model), model_.dtype),
          scenes_(random_scenes(scorer_.concepts(), options.layouts, options.seed)),
          known_(load_cases()) {}

    const Model& model() const { return model_; }
    size_t count() const { return scenes_.size(); }
    std::vector<Image> sheet;
    Json entries = Json::array();

    /// Draws all scenes; singles' and pairs' figures.
    std::array<Figures, 2> draw(bool boxes) {
        std::array<Figures, 2> figures;
        Progress progress(boxes ? "with boxes" : "without");
        for (size_t i = 0; i < scenes_.size(); ++i) {
            const Scene& scene = scenes_[i];
            TextToImage::Request request = request_for(scene, options_.seed + i);
            if (boxes) request.boxes = scene.boxes;
            add(figures[scene.boxes.size() - 1], scene,
                as_saved(TextToImage::run(stream_, model_, request)[0]), boxes);
            if (i >= kShown) sheet.pop_back();
            progress.update(static_cast<int>(i) + 1, static_cast<int>(scenes_.size()));
        }
        return figures;
    }

    /// Given pictures whose objects' masks are known: the evaluator's boxes against the masks'.
    Figures ceiling() {
        Figures figures;
        for (const KnownPicture& known : known_) {
            const auto found = scorer_.locate(stream_, known.picture, known.objects);
            for (size_t i = 0; i < found.size(); ++i)
                figures.add(found[i] ? overlap(layout_box({}, box_of(known.masks[i])), *found[i])
                                     : 0);
        }
        return figures;
    }

    /// Objects of those that show one, on other backgrounds and in random boxes of their
    /// proportions: by their names, and by their pictures.
    std::array<Figures, 2> draw_subjects() {
        std::array<Figures, 2> figures;
        Chance chance(options_.seed);
        Progress progress("subjects");
        for (const KnownPicture& known : known_) {
            if (known.objects.size() != 1) continue;
            const int drawn = figures[0].pictures;
            if (drawn == options_.layouts) break;
            const auto& name = scorer_.concepts().objects[known.objects[0]];
            const auto& colors = scorer_.concepts().colors;
            std::string color;
            do color = colors[chance.below(colors.size())];
            while (known.prompt.find(color) != std::string::npos);
            const Box from = box_of(known.masks[0]);
            const double scale =
                static_cast<double>(chance.within(96, 176)) / std::max(from.width(), from.height());
            const auto side = [&](int length) {
                return std::max(32, static_cast<int>(length * scale));
            };
            const int width = side(from.width()), height = side(from.height()),
                      x = chance.within(0, kSide - width), y = chance.within(0, kSide - height);
            const Scene scene{fmt::format("a {} on a {} background", name, color),
                              {{name, x, y, x + width, y + height}},
                              known.objects};
            const std::string style = scorer_.look(stream_, {known.picture})[0].style;
            TextToImage::Request request = request_for(scene, options_.seed + drawn);
            request.boxes = scene.boxes;
            Subject subject{name, known.picture, {}};
            for (size_t i = 0; i < known.masks[0].rgb.size(); i += 3)
                subject.opacity.push_back(known.masks[0].rgb[i]);
            for (const bool by_picture : {false, true}) {
                if (by_picture) request.subjects = {subject};
                const Image picture = as_saved(TextToImage::run(stream_, model_, request)[0]);
                Figures& f = figures[by_picture];
                f.likeness += likeness_of(picture, known, scene.boxes[0]);
                f.styles += scorer_.look(stream_, {picture})[0].style == style;
                add(f, scene, picture, true);
                entries.back()["subject"] = by_picture;
                sheet.pop_back();
            }
            progress.update(drawn + 1, options_.layouts);
        }
        return figures;
    }

  private:
    std::vector<KnownPicture> load_cases() const {
        std::vector<KnownPicture> list;
        if (options_.cases.empty()) return list;
        const fs::path folder = options_.cases;
        std::ifstream file(folder / "cases.json");
        require(file.good(), "[bench] {} is missing", (folder / "cases.json").string());
        const Json cases = Json::parse(file);
        for (const auto& entry : cases.at("cases")) {
            const auto load = [&](const Json& name) {
                return load_image(folder / name.get<std::string>());
            };
            KnownPicture known{entry.at("prompt"), load(entry.at("picture")), {}, {}};
            const auto& names = scorer_.concepts().objects;
            for (const auto& object : entry.at("objects")) {
                const auto at = std::find(names.begin(), names.end(), object.at("name"));
                require(at != names.end(), "[bench] the evaluator knows no {}",
                        object.at("name").get<std::string>());
                known.objects.push_back(static_cast<size_t>(at - names.begin()));
                known.masks.push_back(load(object.at("mask")));
            }
            list.push_back(std::move(known));
        }
        return list;
    }

    TextToImage::Request request_for(const Scene& scene, uint64_t seed) const {
        TextToImage::Request request;
        request.prompt = scene.prompt;
        request.seeds = {seed};
        request.steps = options_.steps;
        request.cfg = options_.cfg;
        request.cancel = &interrupted();
        request.allow_blank = true;
        return request;
    }

    void add(Figures& figures, const Scene& scene, Image picture, bool boxes) {
        const Verdict verdict = judge(read_prompt(scorer_.concepts(), scene.prompt),
                                      scorer_.look(stream_, {picture})[0]);
        ++figures.pictures;
        figures.recognised += verdict.objects.value_or(false);
        figures.backgrounds += verdict.color.value_or(false);
        const auto found = scorer_.locate(stream_, picture, scene.objects);
        Json entry{{"prompt", scene.prompt},
                   {"boxes", boxes},
                   {"recognised", verdict.objects.value_or(false)},
                   {"asked", Json::array()},
                   {"seen", Json::array()},
                   {"iou", Json::array()}};
        for (size_t i = 0; i < found.size(); ++i) {
            const double iou = found[i] ? overlap(scene.boxes[i], *found[i]) : 0;
            figures.add(iou);
            entry["asked"].push_back(to_text(scene.boxes[i]));
            entry["seen"].push_back(found[i] ? Json(to_text(*found[i])) : Json());
            entry["iou"].push_back(iou);
            outline(picture, scene.boxes[i], kAsked);
            if (found[i]) outline(picture, *found[i], kSeen);
        }
        entries.push_back(std::move(entry));
        sheet.push_back(std::move(picture));
    }

    const BoxesOptions& options_;
    vk::Stream stream_;
    Model model_;
    Scorer scorer_;
    std::vector<Scene> scenes_;
    std::vector<KnownPicture> known_;
};

std::string row_of(const char* name, const char* kind, const Figures& f) {
    return fmt::format("| {} | {} | {} | {:.3f} | {:.1f} | {:.1f} | {:.1f} |\n", name, kind,
                       f.objects, f.mean(), f.share(f.half, f.objects),
                       f.share(f.recognised, f.pictures), f.share(f.backgrounds, f.pictures));
}

}  // namespace

void bench_boxes(vk::Device& device, const BoxesOptions& o) {
    Study study(device, o);
    std::string text = fmt::format(
        "{}, {}, model {}. {} layouts, {} steps, guidance {}, seeds from {}; with and without "
        "boxes from the same noise. IoU: of the asked box and that of the 16×16 pixels in which "
        "the evaluator sees the object with a probability of one half or more; 0 where it sees "
        "none. Recognised: all objects of the prompt.\n\n",
        device.info().name, study.model().dtype == DType::f16 ? "fp16" : "fp32", study.model().hash,
        study.count(), o.steps, o.cfg, o.seed);
    if (!o.cases.empty()) {
        const Figures f = study.ceiling();
        text += fmt::format(
            "What this measures of pictures with known masks: IoU {:.3f} with the box of the mask, "
            "{:.1f} % at one half or more, {} objects.\n\n",
            f.mean(), f.share(f.half, f.objects), f.objects);
    }
    text +=
        "| boxes | layouts of | objects | IoU, mean | IoU ≥ 0.5, % | recognised, % | background, % "
        "|\n|---|---|---|---|---|---|---|\n";
    fmt::print("{}", text);
    Json rows = Json::array();
    const auto save = [&] {
        if (!o.markdown.empty()) save_text(o.markdown, text);
        if (!o.json.empty())
            save_text(o.json, fmt::format("{}\n", Json{{"device", device.info().name},
                                                       {"model", study.model().hash},
                                                       {"steps", o.steps},
                                                       {"cfg", o.cfg},
                                                       {"seed", o.seed},
                                                       {"rows", rows},
                                                       {"pictures", study.entries}}
                                                      .dump(1)));
        if (!o.picture.empty()) save_png(o.picture, tile_images(study.sheet, kColumns));
    };
    for (const bool boxes : {false, true}) {
        const auto [one, two] = study.draw(boxes);
        Figures all = one;
        all.pictures += two.pictures;
        all.objects += two.objects;
        all.half += two.half;
        all.recognised += two.recognised;
        all.backgrounds += two.backgrounds;
        all.iou += two.iou;
        for (const auto& [kind, f] :
             {std::pair("one object", one), std::pair("two objects", two), std::pair("all", all)}) {
            const std::string line = row_of(boxes ? "with" : "without", kind, f);
            fmt::print("{}", line);
            text += line;
            rows.push_back({{"boxes", boxes},
                            {"kind", kind},
                            {"pictures", f.pictures},
                            {"objects", f.objects},
                            {"iou", f.mean()},
                            {"half", f.half},
                            {"recognised", f.recognised},
                            {"backgrounds", f.backgrounds}});
        }
        std::fflush(stdout);
        save();
    }
    if (o.cases.empty()) return;
    text += "\n";
    const std::string head =
        "| subjects | objects | IoU, mean | IoU ≥ 0.5, % | likeness, dB | style, % | recognised, % "
        "| background, % |\n|---|---|---|---|---|---|---|---|\n";
    fmt::print("\n{}", head);
    text += head;
    const auto figures = study.draw_subjects();
    for (const bool by_picture : {false, true}) {
        const Figures& f = figures[by_picture];
        const std::string line =
            fmt::format("| {} | {} | {:.3f} | {:.1f} | {:.1f} | {:.1f} | {:.1f} | {:.1f} |\n",
                        by_picture ? "by their pictures" : "by their names", f.objects, f.mean(),
                        f.share(f.half, f.objects), f.objects == 0 ? 0 : f.likeness / f.objects,
                        f.share(f.styles, f.pictures), f.share(f.recognised, f.pictures),
                        f.share(f.backgrounds, f.pictures));
        fmt::print("{}", line);
        text += line;
        rows.push_back({{"subjects", by_picture},
                        {"objects", f.objects},
                        {"iou", f.mean()},
                        {"half", f.half},
                        {"likeness", f.objects == 0 ? 0 : f.likeness / f.objects},
                        {"styles", f.styles},
                        {"recognised", f.recognised},
                        {"backgrounds", f.backgrounds}});
    }
    save();
}

}  // namespace fovea::apps::bench
