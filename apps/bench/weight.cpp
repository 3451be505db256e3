#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "apps/app.h"
#include "apps/bench/cases.h"
#include "apps/bench/edit.h"
#include "apps/bench/overlap.h"
#include "apps/bench/row.h"
#include "backend/error.h"
#include "pipelines/lens.h"
#include "pipelines/score.h"
#include "vision/prompt_words.h"

namespace fovea::apps::bench {
namespace {

constexpr std::array<float, 4> kFactors{0.3f, 1, 1.8f, 3};

/// A word of a case's own prompt, and what the evaluator may see of it.
struct WeighedWord {
    std::string word, kind;
    Wanted wanted;
};

// The object that the case would exchange, or the style; an empty word: the case has neither.
WeighedWord weighed_word(const Case& one, const Concepts& concepts) {
    const Wanted before = read_prompt(concepts, one.prompt),
                 after = read_prompt(concepts, one.target);
    if (one.kind == "style" && !before.style.empty()) {
        Wanted style;
        style.style = before.style;
        return {before.style, "style", style};
    }
    if (one.kind == "object")
        for (const Case::Object& object : one.objects) {
            const Wanted own = read_prompt(concepts, object.name);
            if (own.objects.size() == 1 && std::find(after.objects.begin(), after.objects.end(),
                                                     own.objects[0]) == after.objects.end())
                return {object.name, "object", own};
        }
    return {};
}

struct WeightRow {
    Mean confidence, area, share, inside, outside;
};

// Of the object: the sum over the evaluator's tokens of its probability.
double area_of(const Seen& seen, size_t object) {
    for (const SeenObject& one : seen.objects)
        if (one.object == object) return double{one.mass};
    return 0;
}

// Mean |difference| within the region, of 255.
double change_inside(const Image& a, const Image& b, const Image& region) {
    Mean change;
    for (size_t i = 0; i < a.rgb.size(); ++i)
        if (region.rgb[i] > 0.5f) change.add(255 * std::abs(double{a.rgb[i]} - b.rgb[i]));
    return change.value();
}

class Balance {
  public:
    Balance(vk::Device& device, const EditOptions& o)
        : stream_(device),
          model_(Model::load(stream_, find_model(o.model),
                             choose_precision(device.info(), o.precision))),
          scorer_(stream_, find_model(o.model), model_.dtype),
          values_(o.values) {}

    const Model& model() const { return model_; }
    const Concepts& concepts() const { return scorer_.concepts(); }

    void add(WeightRow& row, const Case& one, const WeighedWord& weighed, float factor) {
        Edit::Request request = values_;
        request.frames = one.frames;
        request.width = one.picture().width;
        request.height = one.picture().height;
        request.source = request.target = one.prompt;
        request.weights = {{weighed.word, factor}};
        request.cancel = &interrupted();
        const Image picture = as_saved(Edit::run(stream_, model_, request).frames[0]);
        const Seen seen = scorer_.look(stream_, {picture})[0];
        row.confidence.add(rating(weighed.wanted, seen));
        if (!weighed.wanted.objects.empty()) row.area.add(area_of(seen, weighed.wanted.objects[0]));
        row.share.add(share_of(picture, one, weighed.word));
        row.inside.add(change_inside(picture, one.picture(), one.region()));
        row.outside.add(psnr_outside(picture, one.picture(), one.region()));
    }

  private:
    // Of the attention of the region's tokens, what the word gets when the picture is read anew.
    double share_of(const Image& picture, const Case& one, const std::string& word) {
        Lens::Request request;
        request.prompt = one.prompt;
        request.width = picture.width;
        request.height = picture.height;
        request.picture = picture;
        request.cancel = &interrupted();
        const auto read = Lens::run(stream_, model_, request);
        const auto heat =
            read.heat(read.maps.at(0), find_phrase(model_.tokenizer, read.words, word));
        const Image region =
            resize(one.region(), static_cast<int>(read.columns), static_cast<int>(read.rows));
        Mean share;
        for (size_t t = 0; t < heat.size(); ++t)
            if (region.rgb[3 * t] > 0.5f) share.add(double{heat[t]});
        return share.value();
    }

    vk::Stream stream_;
    Model model_;
    Scorer scorer_;
    Edit::Request values_;
};

}  // namespace

void bench_weight(vk::Device& device, const EditOptions& o) {
    const auto cases = read_cases(o.cases, {.limit = o.limit});
    Balance balance(device, o);
    std::vector<std::pair<const Case*, WeighedWord>> weighed;
    for (const Case& one : cases)
        if (auto word = weighed_word(one, balance.concepts()); !word.word.empty())
            weighed.emplace_back(&one, std::move(word));
    require(!weighed.empty(), "[bench] {} has no case of another object, nor of another style",
            o.cases);
    std::map<std::pair<std::string, float>, WeightRow> rows;
    {
        Progress progress("weight");
        int done = 0;
        for (const auto& [one, word] : weighed)
            for (const float factor : kFactors) {
                balance.add(rows[{word.kind, factor}], *one, word, factor);
                progress.update(++done, static_cast<int>(weighed.size() * kFactors.size()));
            }
    }
    std::string text = fmt::format(
        "{}, {}, model {}. {} pictures, {} steps, guidance {}, the same prompt before and after. "
        "Confidence and area: the evaluator's in the object or style, and the tokens of 16×16 "
        "pixels "
        "that it takes for the object; word's share: of the attention of the region's tokens when "
        "the result is read with weights of 1; change: of pixels in the region, of 255.\n\n"
        "| weighed | weight | cases | confidence | area | word's share | change inside | PSNR "
        "outside, dB |\n|---|---|---|---|---|---|---|---|\n",
        device.info().name, balance.model().dtype == DType::f16 ? "fp16" : "fp32",
        balance.model().hash, weighed.size(), o.values.steps, o.values.cfg);
    for (const auto& [key, row] : rows)
        text += fmt::format("| {} | {} | {} | {} | {} | {} | {:.2f} | {:.1f} |\n", key.first,
                            key.second, row.share.count, row.confidence.text(),
                            row.area.count > 0 ? fmt::format("{:.1f}", row.area.value()) : "",
                            row.share.percent(), row.inside.value(), row.outside.value());
    fmt::print("{}", text);
    if (!o.markdown.empty()) save_text(o.markdown, text);
}

}  // namespace fovea::apps::bench
