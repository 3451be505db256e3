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

struct Variant {
    const char* name;
    bool magnets;
    float sinks;
    int spread;
};
constexpr std::array<Variant, 6> kVariants{{{"word maps alone", false, 0, 0},
                                            {"magnets", true, 0, 0},
                                            {"sinks", false, 3, 0},
                                            {"magnets, sinks", true, 3, 0},
                                            {"magnets, spread", true, 0, 5},
                                            {"magnets, sinks, spread", true, 3, 5}}};

double overlap(const std::vector<float>& mask, const Image& truth) {
    double both = 0, either = 0;
    for (size_t i = 0; i < mask.size(); ++i) {
        const bool found = mask[i] > 0.5f, there = truth.rgb[3 * i] > 0.5f;
        both += found && there;
        either += found || there;
    }
    return either > 0 ? both / either : 0;
}

}  // namespace

void bench_refer(vk::Device& device, const EditOptions& o) {
    const auto cases = read_cases(o.cases, {.limit = o.limit});
    vk::Stream stream(device);
    const Model model =
        Model::load(stream, find_model(o.model), choose_precision(device.info(), o.precision));
    std::string text = fmt::format(
        "{}, model {}. {} pictures, {} passes each.\n\n| | objects | mean IoU | IoU of 0.5 or more "
        "| "
        "peak in the mask |\n|---|---|---|---|---|\n",
        device.info().name, model.hash, cases.size(), Lens::kReadingTimes.size());
    Progress progress("refer");
    int done = 0;
    for (const Variant& variant : kVariants) {
        double sum = 0;
        int objects = 0, halves = 0, hits = 0;
        for (const Case& one : cases) {
            for (const Case::Object& object : one.objects) {
                Refer::Request request;
                request.picture = one.picture();
                request.words = object.name;
                if (!variant.magnets) request.magnets.clear();
                request.sinks = variant.sinks;
                request.spread = variant.spread;
                request.cancel = &interrupted();
                const auto found = Refer::run(stream, model, request);
                const double iou = overlap(found.mask, object.mask);
                const auto peak =
                    static_cast<size_t>(found.peak_y) * static_cast<size_t>(one.picture().width) +
                    static_cast<size_t>(found.peak_x);
                sum += iou;
                halves += iou >= 0.5;
                hits += object.mask.rgb[3 * peak] > 0.5f;
                ++objects;
            }
            progress.update(++done, static_cast<int>(cases.size() * kVariants.size()));
        }
        text += fmt::format("| {} | {} | {:.3f} | {:.1f} % | {:.1f} % |\n", variant.name, objects,
                            sum / objects, 100.0 * halves / objects, 100.0 * hits / objects);
    }
    fmt::print("{}", text);
    if (!o.markdown.empty()) save_text(o.markdown, text);
}

}  // namespace fovea::apps::bench
