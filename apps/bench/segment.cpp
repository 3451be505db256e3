#include "apps/bench/segment.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>

#include "apps/app.h"
#include "apps/bench/cases.h"
#include "apps/bench/overlap.h"
#include "apps/bench/row.h"
#include "apps/session.h"
#include "pipelines/segment.h"

namespace fovea::apps::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char *kSegmentPoint = "point", *kSegmentCorrected = "point and a correction",
                     *kSegmentBox = "box", *kSegmentWords = "words";

struct SegmentOther {
    const char* name;
    SegmentDrawing drawing;
};
constexpr std::array<SegmentOther, 3> kSegmentOthers{
    {{"no closer looks", {.closer = false}},
     {"no guided filter", {.edges = false}},
     {"neither", {.closer = false, .edges = false}}}};

/// In the table's order.
std::vector<std::string> segment_rows() {
    std::vector<std::string> rows{kSegmentPoint, kSegmentCorrected, kSegmentBox, kSegmentWords};
    for (const auto& other : kSegmentOthers)
        for (const char* row : {kSegmentPoint, kSegmentBox, kSegmentWords})
            rows.push_back(fmt::format("{}, {}", row, other.name));
    return rows;
}

struct SegmentFigures {
    Mean overlap, half, found;
    Mean pictures;  ///< of each picture's mean overlap
    Mean picture;   ///< overlap in the present one

    void add(const std::optional<Segment>& segment, const Mask& truth) {
        const double value = segment ? iou(segment->mask(), truth) : 0;
        overlap.add(value);
        picture.add(value);
        half.add(value >= 0.5);
        found.add(segment.has_value());
    }
    void end_picture() {
        if (picture.count > 0) pictures.add(picture.value());
        picture = {};
    }
    std::string text() const {
        return fmt::format("{}, {} ({}; {})", overlap.text(), pictures.text(), half.percent(),
                           found.percent());
    }
};

/// Of the pictures of a kind.
struct SegmentKind {
    int pictures = 0, objects = 0;
    std::map<std::string, SegmentFigures> rows;
    Mean false_alarms;
    Mean recall, half, masks;  ///< of everything
};

SegmentPrompt::Point point_at(const Pixel& pixel, bool positive = true) {
    return {.x = static_cast<float>(pixel.x) + 0.5f,
            .y = static_cast<float>(pixel.y) + 0.5f,
            .positive = positive};
}

Mask differing(const Mask& a, Mask b) {
    for (size_t i = 0; i < b.hole.size(); ++i) b.hole[i] = b.hole[i] != a.hole[i];
    return b;
}

class SegmentBench {
  public:
    SegmentBench(vk::Device& device, const SegmentBenchOptions& o)
        : options_(o),
          cases_(read_cases(o.cases, {.limit = o.limit, .edits = false})),
          device_(device),
          stream_(device),
          model_(SegmentModel::load(stream_, find_model(o.model),
                                    choose_precision(device.info(), o.precision))) {
        for (const Case& one : cases_)
            if (std::find(order_.begin(), order_.end(), one.kind) == order_.end())
                order_.push_back(one.kind);
    }

    void run() {
        Progress progress("segment");
        const auto count = static_cast<int>(cases_.size());
        for (int at = 0; at < count; ++at) {
            measure(static_cast<size_t>(at));
            progress.update(at + 1, count);
        }
    }
    std::string text() const;
    Json json() const;

  private:
    void measure(size_t at);
    void words(size_t at, SegmentedPicture& picture);
    void everything(const Case& one, SegmentedPicture& picture);
    /// Asks, and compares what each way of drawing makes of the answer with the truth.
    std::optional<Segment> ask(const Case& one, SegmentedPicture& picture, const std::string& row,
                               const SegmentPrompt& prompt, const Mask& truth);
    /// Timed: `truth` is that of a row, none of words for what is not there.
    std::optional<Segment> answer(const Case& one, SegmentedPicture& picture,
                                  const std::string& row, const SegmentPrompt& prompt,
                                  const Mask* truth);

    const SegmentBenchOptions& options_;
    const std::vector<Case> cases_;
    vk::Device& device_;
    vk::Stream stream_;
    const SegmentModel model_;
    std::vector<std::string> order_;  ///< of kinds
    std::map<std::string, SegmentKind> kinds_;
    bool read_ = false;                ///< the picture, by its first prompt
    Mean first_, later_, everything_;  ///< seconds: a picture's first prompt, others, everything
    Json each_ = Json::array();
};

std::optional<Segment> SegmentBench::answer(const Case& one, SegmentedPicture& picture,
                                            const std::string& row, const SegmentPrompt& prompt,
                                            const Mask* truth) {
    if (interrupted()) throw Cancelled();
    const auto start = Clock::now();
    auto found = picture.ask(prompt);
    (read_ ? later_ : first_).add(seconds_since(start));
    read_ = true;
    Json line{{"picture", one.name},
              {"kind", one.kind},
              {"prompt", row},
              {"words", prompt.words},
              {"found", found.has_value()}};
    if (found) {
        line["score"] = found->score;
        line["first"] = {{"score", found->first.score}, {"found", found->first.found}};
    }
    if (truth) line["iou"] = found ? iou(found->mask(), *truth) : 0;
    each_.push_back(std::move(line));
    return found;
}

std::optional<Segment> SegmentBench::ask(const Case& one, SegmentedPicture& picture,
                                         const std::string& row, const SegmentPrompt& prompt,
                                         const Mask& truth) {
    SegmentKind& kind = kinds_[one.kind];
    auto found = answer(one, picture, row, prompt, &truth);
    kind.rows[row].add(found, truth);
    for (const auto& other : kSegmentOthers) {
        std::optional<Segment> drawn;
        if (found) drawn = picture.refine(found->first, prompt, other.drawing);
        kind.rows[fmt::format("{}, {}", row, other.name)].add(drawn, truth);
    }
    return found;
}

void SegmentBench::words(size_t at, SegmentedPicture& picture) {
    const Case& one = cases_[at];
    std::map<std::string, Mask> named;
    for (const auto& object : one.objects) {
        auto& all = named.emplace(object.name, object.mask).first->second;
        for (size_t i = 0; i < all.hole.size(); ++i) all.hole[i] |= object.mask.hole[i];
    }
    for (const auto& [name, truth] : named)
        ask(one, picture, kSegmentWords, {.words = name}, truth);
    if (const std::string* other = another_name(cases_, at))
        kinds_[one.kind].false_alarms.add(
            answer(one, picture, "words of another picture", {.words = *other}, nullptr)
                .has_value());
}

void SegmentBench::everything(const Case& one, SegmentedPicture& picture) {
    const auto start = Clock::now();
    const auto found = picture.everything({.grid = options_.grid, .cancel = &interrupted()});
    everything_.add(seconds_since(start));
    SegmentKind& kind = kinds_[one.kind];
    kind.masks.add(static_cast<double>(found.size()));
    for (const auto& object : one.objects) {
        double best = 0;
        for (const auto& segment : found) best = std::max(best, iou(segment.mask(), object.mask));
        Mean recall;
        for (int percent = 50; percent <= 95; percent += 5) recall.add(100 * best >= percent);
        kind.recall.add(recall.value());
        kind.half.add(best >= 0.5);
    }
}

void SegmentBench::measure(size_t at) {
    const Case& one = cases_[at];
    SegmentedPicture picture(stream_, model_, one.picture());
    SegmentKind& kind = kinds_[one.kind];
    ++kind.pictures;
    read_ = false;
    for (const auto& object : one.objects) {
        const Mask& truth = object.mask;
        ++kind.objects;
        SegmentPrompt prompt{.points = {point_at(innermost(truth))}};
        const auto found = ask(one, picture, kSegmentPoint, prompt, truth);
        const Mask wrong = found ? differing(found->mask(), truth) : truth;
        if (found) prompt.earlier = found->last;
        if (wrong.count() > 0) {
            const Pixel worst = innermost(wrong);
            prompt.points.push_back(point_at(worst, truth.at(worst.x, worst.y)));
        }
        kind.rows[kSegmentCorrected].add(answer(one, picture, kSegmentCorrected, prompt, &truth),
                                         truth);
        ask(one, picture, kSegmentBox, {.box = corners_of(truth.box())}, truth);
    }
    words(at, picture);
    for (auto& [name, figures] : kind.rows) figures.end_picture();
    if (options_.everything < 0 || static_cast<int>(at) < options_.everything)
        everything(one, picture);
}

std::string SegmentBench::text() const {
    const auto row = [&](const std::string& name, const auto& cell) {
        std::string line = fmt::format("| {} |", name);
        for (const auto& kind : order_) line += fmt::format(" {} |", cell(kinds_.at(kind)));
        return line + "\n";
    };
    std::string text = fmt::format(
        "{}, model {}. Mean IoU of the objects, of the pictures (IoU of 0.5 or more; found).\n\n",
        device_.info().name, model_.hash);
    text += "| |";
    for (const auto& kind : order_) text += fmt::format(" {} |", kind);
    text += "\n|---|";
    for (size_t i = 0; i < order_.size(); ++i) text += "---|";
    text += "\n" + row("pictures, objects", [](const SegmentKind& kind) {
                return fmt::format("{}, {}", kind.pictures, kind.objects);
            });
    for (const auto& name : segment_rows())
        text += row(name, [&](const SegmentKind& kind) {
            const auto at = kind.rows.find(name);
            return at == kind.rows.end() ? "" : at->second.text();
        });
    text += row("words of another picture: found",
                [](const SegmentKind& kind) { return kind.false_alarms.percent(); });
    if (everything_.count > 0) {
        text += row("everything: average recall",
                    [](const SegmentKind& kind) { return kind.recall.text(); });
        text += row("… IoU of 0.5 or more",
                    [](const SegmentKind& kind) { return kind.half.percent(); });
        text += row("… masks a picture", [](const SegmentKind& kind) {
            return kind.masks.count > 0
                       ? fmt::format("{:.1f} of {} pictures", kind.masks.value(), kind.masks.count)
                       : "";
        });
    }
    return text + fmt::format(
                      "\nA second: {:.2f} pictures read and asked by their first prompt, "
                      "{:.2f} further prompts{}.\n",
                      first_.rate(), later_.rate(),
                      everything_.count > 0
                          ? fmt::format(", {:.3f} pictures of everything", everything_.rate())
                          : "");
}

Json SegmentBench::json() const {
    return {{"device", device_.info().name}, {"model", model_.hash}, {"each", each_}};
}

}  // namespace

void bench_segment(vk::Device& device, const SegmentBenchOptions& options) {
    SegmentBench bench(device, options);
    bench.run();
    const std::string text = bench.text();
    fmt::print("{}", text);
    if (!options.markdown.empty()) save_text(options.markdown, text);
    if (!options.json.empty()) save_text(options.json, fmt::format("{}\n", bench.json().dump(1)));
}

}  // namespace fovea::apps::bench
