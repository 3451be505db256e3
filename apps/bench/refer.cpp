#include "pipelines/refer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "apps/app.h"
#include "apps/bench/cases.h"
#include "apps/bench/edit.h"
#include "apps/bench/overlap.h"
#include "apps/bench/row.h"
#include "apps/session.h"

namespace fovea::apps::bench {
namespace {

struct ReferRow {
    std::string name;
    Mean all, alone, among, halves, peaks;  ///< alone, among: of one object, of several

    void add(const Mask& mask, const Mask& truth, bool several) {
        const double overlap = iou(mask, truth);
        all.add(overlap);
        (several ? among : alone).add(overlap);
        halves.add(overlap >= 0.5);
    }
};

struct ReferVariant {
    const char* name;
    bool magnets;
    float sinks;
    int spread;
    bool wrong = false;  ///< words of another picture: what is found without understanding them
};
constexpr std::array<ReferVariant, 6> kReferVariants{
    {{"as it is", true, 3, 5},
     {"without magnets", false, 3, 5},
     {"without sinks", true, 0, 5},
     {"without spread", true, 3, 0},
     {"word maps alone", false, 0, 0},
     {"words of another picture", true, 3, 5, true}}};

struct ReferHandOver {
    const char* name;
    ReferPrompt prompt;
};
constexpr std::array<ReferHandOver, 4> kReferHandOvers{
    {{"through the segmentation model: point", ReferPrompt::point},
     {"… box", ReferPrompt::box},
     {"… point and box", ReferPrompt::point_and_box},
     {"… mask", ReferPrompt::mask}}};

}  // namespace

void bench_refer(vk::Device& device, const EditOptions& o) {
    const auto cases = read_cases(o.cases, {.limit = o.limit, .edits = false});
    vk::Stream stream(device);
    const auto folder = find_model(o.model);
    const DType precision = choose_precision(device.info(), o.precision);
    const Model model = Model::load(stream, folder, precision);
    const SegmentModel segments = SegmentModel::load(stream, folder, precision);

    std::vector<ReferRow> rows;
    for (const auto& variant : kReferVariants) rows.push_back({.name = variant.name});
    for (const auto& way : kReferHandOvers) rows.push_back({.name = way.name});
    rows.push_back({.name = "the segmentation model's own words"});
    Progress progress("refer");
    int done = 0;
    for (size_t at = 0; at < cases.size(); ++at) {
        const Case& one = cases[at];
        const bool several = one.objects.size() > 1;
        SegmentedPicture picture(stream, segments, one.picture());
        const Mask nothing = mask_of(Box{}, one.picture().width, one.picture().height);
        const auto ask = [&](const SegmentPrompt& prompt) {
            const auto found = picture.ask(prompt);
            return found ? found->mask() : nothing;
        };
        for (const Case::Object& object : one.objects) {
            size_t row = 0;
            std::optional<Refer::Result> whole;
            for (const auto& variant : kReferVariants) {
                const std::string* words = variant.wrong ? another_name(cases, at) : &object.name;
                if (!words) {
                    ++row;
                    continue;
                }
                Refer::Request request;
                request.picture = one.picture();
                request.words = *words;
                if (!variant.magnets) request.magnets.clear();
                request.sinks = variant.sinks;
                request.spread = variant.spread;
                request.cancel = &interrupted();
                auto found = Refer::run(stream, model, request);
                rows[row].peaks.add(
                    object.mask.at(static_cast<int>(found.peak_x), static_cast<int>(found.peak_y)));
                rows[row++].add(found.mask, object.mask, several);
                if (!whole) whole = std::move(found);
            }
            for (const auto& way : kReferHandOvers)
                rows[row++].add(ask(refer_prompt(*whole, way.prompt)), object.mask, several);
            rows[row].add(ask({.words = object.name}), object.mask, several);
        }
        progress.update(++done, static_cast<int>(cases.size()));
    }

    std::string text = fmt::format(
        "{}, model {}. {} pictures, {} objects, {} passes each.\n\n| | mean IoU | one object | "
        "several | IoU of 0.5 or more | peak in the mask |\n|---|---|---|---|---|---|\n",
        device.info().name, model.hash, cases.size(), rows[0].all.count,
        Lens::kReadingTimes.size());
    for (const auto& row : rows)
        text += fmt::format("| {} | {} | {} | {} | {} | {} |\n", row.name, row.all.text(),
                            row.alone.text(), row.among.text(), row.halves.percent(),
                            row.peaks.percent());
    fmt::print("{}", text);
    if (!o.markdown.empty()) save_text(o.markdown, text);
}

}  // namespace fovea::apps::bench
