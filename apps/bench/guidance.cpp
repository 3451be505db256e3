#include "apps/bench/guidance.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>

#include "apps/app.h"
#include "apps/bench/row.h"
#include "backend/error.h"
#include "pipelines/score.h"
#include "pipelines/text_to_image.h"

namespace fovea::apps::bench {
namespace {

constexpr float kSure = 0.5f;  // confidence from which a picture without a prompt shows something

struct Setting {
    bool prompted;
    std::string guidance;
    int steps;
    const char* matched = "";  ///< fewer steps, at the cost of this guidance
};

struct Result {
    int recognised = 0, objects = 0, backgrounds = 0;
    double confidence = 0;    ///< mean
    double step_seconds = 0;  ///< of one picture
    double passes = 0;
};

class Study {
  public:
    Study(vk::Device& device, const GuidanceOptions& options)
        : options_(options),
          stream_(device),
          folder_(find_model(options.model)),
          dtype_(choose_precision(device.info(), options.precision)),
          model_(Model::load(stream_, folder_, dtype_)),
          scorer_(stream_, folder_, dtype_) {
        if (options.prompts.empty()) {
            prompts_ = plain_prompts(scorer_.concepts(), options.count);
            return;
        }
        std::ifstream file(options.prompts);
        for (std::string line; std::getline(file, line);)
            if (!line.empty() && std::ssize(prompts_) < options.count) prompts_.push_back(line);
        require(!prompts_.empty(), "[bench] {} has no prompts, expected one a line",
                options.prompts);
    }

    const Model& model() const { return model_; }
    int pictures() const { return static_cast<int>(prompts_.size()); }

    TextToImage::Request request(const Setting& setting, int begin, int count) const {
        TextToImage::Request request;
        request.width = request.height = options_.size;
        request.steps = setting.steps;
        request.guidance = parse_guidance(setting.guidance);
        request.entropy_scale = options_.entropy_scale;
        request.cancel = &interrupted();
        request.allow_blank = true;  // one that shows nothing
        request.most_together = options_.batch;
        request.seeds.clear();
        for (int i = begin; i < begin + count; ++i) {
            request.seeds.push_back(options_.seed + static_cast<uint64_t>(i));
            request.each_prompt.push_back(setting.prompted ? prompts_[static_cast<size_t>(i)] : "");
        }
        return request;
    }

    /// Of a step of one picture in a full batch: on GPUs the best of ten, what else runs only
    /// adds.
    double step_seconds(const Setting& setting) {
        const int count = std::min(options_.batch, pictures());
        double best = std::numeric_limits<double>::infinity();
        const int repeats = stream_.device().info().type == vk::DeviceType::cpu ? 1 : 10;
        for (int i = 0; i < repeats; ++i) {
            const auto probe = TextToImage::probe(stream_, model_, request(setting, 0, count));
            best = std::min(best, probe.step_seconds / count);
        }
        return best;
    }

    double passes(const std::string& guidance, int steps) {
        const Guidance parsed = parse_guidance(guidance);
        std::vector<Perturbation> all;
        for (const GuidanceTerm& term : parsed.terms)
            if (!term.of_text()) all.emplace_back(stream_, term, model_.dit.config());
        return mean_passes(parsed, all, model_.dit.config().layers, steps);
    }

    Result run(const Setting& setting, std::vector<Image>& sheet, int columns) {
        Result result;
        const int at_once = options_.batch;
        result.step_seconds = step_seconds(setting);
        result.passes = passes(setting.guidance, setting.steps);
        for (int begin = 0; begin < pictures(); begin += at_once) {
            const auto part = request(setting, begin, std::min(at_once, pictures() - begin));
            auto images = TextToImage::run(stream_, model_, part);
            for (Image& image : images) image = as_saved(image);
            const auto seen = scorer_.look(stream_, images);
            for (size_t i = 0; i < seen.size(); ++i) {
                add(result, part.each_prompt[i], seen[i]);
                if (begin + static_cast<int>(i) < columns) sheet.push_back(images[i]);
            }
        }
        result.confidence /= pictures();
        return result;
    }

  private:
    void add(Result& result, const std::string& prompt, const Seen& seen) const {
        const Wanted wanted = read_prompt(scorer_.concepts(), prompt);
        const double confidence = rating(wanted, seen);
        result.confidence += confidence;
        if (prompt.empty()) {
            result.recognised += confidence >= kSure;
            return;
        }
        const Verdict verdict = judge(wanted, seen);
        result.recognised += verdict.all();
        result.objects += verdict.objects.value_or(true);
        result.backgrounds += verdict.color.value_or(true);
    }

    const GuidanceOptions& options_;
    vk::Stream stream_;
    std::filesystem::path folder_;
    DType dtype_;
    Model model_;
    Scorer scorer_;
    std::vector<std::string> prompts_;
};

std::vector<std::string> usual_guidances() {
    std::vector<std::string> list{"cfg:1", "cfg:3", "apg:3", "cfgzero:3"};
    for (const char* one : {"pag:2", "softpag:2", "seg:2", "skip:1", "pag:1,seg:1"})
        list.emplace_back(one);
    for (const char* one : {"pag:1", "softpag:1", "seg:1", "skip:0.5", "pag:1@steps=0-0.6",
                            "pag:1@blocks=5-6", "pag:1@every=2", "pag:0.5,seg:0.5"})
        list.push_back(fmt::format("cfg:3,{}", one));
    list.emplace_back("apg:3,pag:1@steps=0-0.6");
    return list;
}

std::vector<Setting> settings_of(Study& study, const GuidanceOptions& o) {
    const auto& guidances = o.guidances.empty() ? usual_guidances() : o.guidances;
    std::vector<Setting> settings;
    // And once more in as many passes in all as this guidance makes in its steps.
    const auto add = [&](bool prompted, const std::string& text, const char* than, double passes) {
        settings.push_back({prompted, text, o.steps});
        const double own = study.passes(text, o.steps);
        const int steps = static_cast<int>(std::lround(o.steps * passes / own));
        if (own > passes && steps < o.steps && steps >= 1)
            settings.push_back({prompted, text, steps, than});
    };
    for (const std::string& text : guidances) add(true, text, "cfg", 2);
    for (const std::string& text : guidances)
        if (const auto g = parse_guidance(text); !g.of_text() || g.of_text()->scale == 1)
            add(false, text, "none", 1);
    return settings;
}

Json to_json(const Setting& setting, const Result& r, int pictures) {
    return {{"guidance", setting.guidance},
            {"prompted", setting.prompted},
            {"steps", setting.steps},
            {"at_cost_of", setting.matched},
            {"pictures", pictures},
            {"recognised", r.recognised},
            {"objects", r.objects},
            {"backgrounds", r.backgrounds},
            {"confidence", r.confidence},
            {"passes", r.passes},
            {"step_ms", 1000 * r.step_seconds}};
}

}  // namespace

void bench_guidance(vk::Device& device, const GuidanceOptions& o) {
    validate_sides(o.size, o.size, "bench");
    Study study(device, o);
    const auto settings = settings_of(study, o);
    const int n = study.pictures(), columns = std::min(8, n);
    std::string text = fmt::format(
        "{}, {}, model {}. {} prompts, {}×{}{}, the same seeds in each row. Recognised: all that "
        "the "
        "prompt asks for; without a prompt: an object with a confidence of {} or more. ± is one "
        "standard error. Time of a step is of one picture of a batch of {}.\n\n"
        "| prompt | guidance | steps | recognised, % | objects, % | background, % | confidence | "
        "passes a step | ms a step | against none | against cfg |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n",
        device.info().name, study.model().dtype == DType::f16 ? "fp16" : "fp32", study.model().hash,
        n, o.size, o.size, o.entropy_scale ? " with the entropy scale" : "", kSure,
        std::min(o.batch, n));
    fmt::print("{}", text);
    std::vector<Image> sheet;
    Json rows = Json::array();
    const double none = study.step_seconds({true, "cfg:1", o.steps}),
                 cfg = study.step_seconds({true, "cfg:3", o.steps});
    for (const Setting& setting : settings) {
        const Result r = study.run(setting, sheet, columns);
        const double share = static_cast<double>(r.recognised) / n;
        const auto percent = [&](int count) {
            return setting.prompted ? fmt::format("{:.1f}", 100.0 * count / n) : std::string("-");
        };
        const std::string line = fmt::format(
            "| {} | {} | {}{} | {:.1f} ± {:.1f} | {} | {} | {:.3f} | {:.2f} | {:.2f} | {:.2f} | "
            "{:.2f} |\n",
            setting.prompted ? "with" : "without", setting.guidance, setting.steps,
            *setting.matched ? fmt::format(" (cost of {})", setting.matched) : "", 100 * share,
            100 * std::sqrt(share * (1 - share) / n), percent(r.objects), percent(r.backgrounds),
            r.confidence, r.passes, 1000 * r.step_seconds, r.step_seconds / none,
            r.step_seconds / cfg);
        fmt::print("{}", line);
        std::fflush(stdout);
        text += line;
        rows.push_back(to_json(setting, r, n));
        // So far: the rest may be interrupted.
        if (!o.markdown.empty()) save_text(o.markdown, text);
        if (!o.json.empty())
            save_text(o.json, fmt::format("{}\n", Json{{"device", device.info().name},
                                                       {"model", study.model().hash},
                                                       {"size", o.size},
                                                       {"entropy_scale", o.entropy_scale},
                                                       {"none_ms", 1000 * none},
                                                       {"cfg_ms", 1000 * cfg},
                                                       {"rows", rows}}
                                                      .dump(1)));
        if (!o.picture.empty()) save_png(o.picture, tile_images(sheet, columns));
    }
}

}  // namespace fovea::apps::bench
