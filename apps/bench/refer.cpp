#include "pipelines/refer.h"

#include <fmt/format.h>

#include <array>

#include "apps/app.h"
#include "apps/bench/cases.h"
#include "apps/bench/edit.h"
#include "apps/bench/row.h"
#include "apps/session.h"

namespace fovea::apps::bench {
namespace {

struct ReferRow {
    std::string name;
    int objects = 0, halves = 0, hits = 0;
    double sum = 0;

    void add(const Mask& mask, const Image& truth) {
        double both = 0, either = 0;
        for (size_t i = 0; i < mask.hole.size(); ++i) {
            const bool there = truth.rgb[3 * i] > 0.5f;
            both += mask.hole[i] && there;
            either += mask.hole[i] || there;
        }
        const double iou = either > 0 ? both / either : 0;
        sum += iou;
        halves += iou >= 0.5;
        ++objects;
    }
};

struct ReferVariant {
    const char* name;
    bool magnets;
    float sinks;
    int spread;
};
constexpr std::array<ReferVariant, 5> kReferVariants{{{"as it is", true, 3, 5},
                                                      {"without magnets", false, 3, 5},
                                                      {"without sinks", true, 0, 5},
                                                      {"without spread", true, 3, 0},
                                                      {"word maps alone", false, 0, 0}}};

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
    const auto cases = read_cases(o.cases, o.limit);
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
    for (const Case& one : cases) {
        SegmentedPicture picture(stream, segments, one.picture);
        const Mask nothing = mask_of(Box{}, one.picture.width, one.picture.height);
        const auto ask = [&](const SegmentPrompt& prompt) {
            const auto found = picture.ask(prompt);
            return found ? found->mask() : nothing;
        };
        for (const Case::Object& object : one.objects) {
            size_t row = 0;
            std::optional<Refer::Result> whole;
            for (const auto& variant : kReferVariants) {
                Refer::Request request;
                request.picture = one.picture;
                request.words = object.name;
                if (!variant.magnets) request.magnets.clear();
                request.sinks = variant.sinks;
                request.spread = variant.spread;
                request.cancel = &interrupted();
                auto found = Refer::run(stream, model, request);
                const auto peak =
                    static_cast<size_t>(found.peak_y) * static_cast<size_t>(one.picture.width) +
                    static_cast<size_t>(found.peak_x);
                rows[row].hits += object.mask.rgb[3 * peak] > 0.5f;
                rows[row++].add(found.mask, object.mask);
                if (!whole) whole = std::move(found);
            }
            for (const auto& way : kReferHandOvers)
                rows[row++].add(ask(refer_prompt(*whole, way.prompt)), object.mask);
            rows[row].add(ask({.words = object.name}), object.mask);
        }
        progress.update(++done, static_cast<int>(cases.size()));
    }

    std::string text = fmt::format(
        "{}, model {}. {} pictures, {} objects, {} passes each.\n\n| | mean IoU | IoU of 0.5 or "
        "more | peak in the mask |\n|---|---|---|---|\n",
        device.info().name, model.hash, cases.size(), rows[0].objects, Lens::kReadingTimes.size());
    for (size_t i = 0; i < rows.size(); ++i)
        text += fmt::format("| {} | {:.3f} | {:.1f} % | {} |\n", rows[i].name,
                            rows[i].sum / rows[i].objects, 100.0 * rows[i].halves / rows[i].objects,
                            i < kReferVariants.size()
                                ? fmt::format("{:.1f} %", 100.0 * rows[i].hits / rows[i].objects)
                                : "");
    fmt::print("{}", text);
    if (!o.markdown.empty()) save_text(o.markdown, text);
}

}  // namespace fovea::apps::bench
