#include "vision/methods/parse.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string_view>

#include "backend/error.h"
#include "backend/patterns/registry.h"
#include "vision/methods/calibration.h"

namespace fovea {
namespace {

/// "name:key=value:key=value"; the value of "of" is the rest.
class Spec {
  public:
    explicit Spec(std::string_view text) : text_(text) {
        size_t end = text.find(':');
        name = text.substr(0, end);
        while (end != std::string_view::npos) {
            const size_t begin = end + 1;
            end = text.find(':', begin);
            std::string_view part = text.substr(begin, end - begin);
            const size_t equals = part.find('=');
            require(equals != std::string_view::npos,
                    "[method] \"{}\": \"{}\" found where name=value is expected", text, part);
            if (part.substr(0, equals) == "of") {
                part = text.substr(begin);
                end = std::string_view::npos;
            }
            values_[std::string(part.substr(0, equals))] = part.substr(equals + 1);
        }
    }

    template <typename T>
    T number(const std::string& key, T otherwise) {
        const auto text = take(key);
        if (text.empty()) return otherwise;
        T value{};
        const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
        require(code == std::errc() && end == text.data() + text.size() &&
                    std::isfinite(static_cast<double>(value)),
                "[method] \"{}\": \"{}\" found where a number is expected", text_, text);
        return value;
    }
    std::string_view take(const std::string& key) {
        known_.push_back(key);
        const auto found = values_.find(key);
        if (found == values_.end()) return {};
        const std::string_view value = found->second;
        values_.erase(found);
        return value;
    }
    /// When all keys have been taken.
    void done() const {
        require(values_.empty(), "[method] \"{}\": option \"{}\" found, expected {}", text_,
                values_.empty() ? "" : values_.begin()->first,
                known_.empty() ? "none" : fmt::format("{}", fmt::join(known_, ", ")));
    }

    std::string_view name;

  private:
    std::string_view text_;
    std::map<std::string, std::string_view> values_;
    std::vector<std::string> known_;
};

Grid grid_of(const DitGrid& grid) {
    Grid result;
    for (const int64_t extent : grid) result.shape.push_back(static_cast<uint32_t>(extent));
    return result;
}

PatternSchedule calibrated(const std::string& file, const DitConfig& model, const Grid& grid) {
    require(!file.empty(),
            "[method] pattern reordered needs a calibration: make one with fovea calibrate");
    const Calibration c = load_calibration(file);
    const auto& s = c.settings;
    require(s.layers == model.layers && s.heads == model.heads,
            "[method] {} is for {} layers of {} heads, the model has {} of {}", file, s.layers,
            s.heads, model.layers, model.heads);
    require(std::equal(grid.shape.begin(), grid.shape.end(), s.grid.begin(), s.grid.end()),
            "[method] {} is for {} tokens, the clip has {}: calibrate at its size", file,
            fmt::join(s.grid, "x"), fmt::join(grid.shape, "x"));
    return c.schedule();
}

PatternSchedule constant(const Pattern& pattern) {
    return [pattern](int64_t, int, int) { return pattern; };
}

PatternSchedule schedule_of(const std::string& spec, const std::string& calibration,
                            const DitConfig& model, const Grid& grid) {
    if (spec == "reordered") return calibrated(calibration, model, grid);
    return constant(parse_pattern(spec, grid));
}

std::unique_ptr<AttentionMethod> attention_method(const MethodRequest& r, const DitConfig& model,
                                                  const Grid& grid) {
    const bool selects = r.pattern.starts_with("rectified"),
               reuses = r.pattern.starts_with("rettention");
    const auto rules = pattern_names();
    const std::string first = r.pattern.substr(0, r.pattern.find(':'));
    require(selects || reuses || std::find(rules.begin(), rules.end(), first) != rules.end(),
            "[method] pattern \"{}\" found, expected one of: {}, rectified, rettention:of=PATTERN, "
            "and for a clip auto",
            r.pattern, fmt::join(rules, ", "));
    if (!selects && !reuses)
        return pattern_method(schedule_of(r.pattern, r.calibration, model, grid));
    Spec spec(r.pattern);
    if (selects && spec.name == "rectified") {
        RectifiedOptions options{.grid = grid};
        options.block = spec.number("block", block_for(grid.tokens()));
        options.keep = spec.number("keep", options.keep);
        options.mass = spec.number("mass", options.mass);
        options.rectify = spec.number("rectify", 1) != 0;
        spec.done();
        return rectified_method(options);
    }
    require(spec.name == "rettention", "[method] \"{}\" found, expected rectified or rettention",
            spec.name);
    ReuseOptions options;
    options.every = spec.number("every", options.every);
    options.growth = spec.number("growth", options.growth);
    const std::string of(spec.take("of"));
    spec.done();
    require(!of.empty(),
            "[method] \"{}\": a pattern is missing, as in rettention:of=neighborhood:0x5x5",
            r.pattern);
    return reuse_method(schedule_of(of, r.calibration, model, grid), options);
}

std::unique_ptr<FeatureCache> feature_cache(const std::string& text, int64_t layers) {
    if (text.empty()) return nullptr;
    Spec spec(text);
    if (spec.name == "threshold") {
        const double most = spec.number("change", 0.15);
        spec.done();
        return threshold_cache(most);
    }
    require(spec.name == "runs", "[method] cache \"{}\" found, expected runs or threshold", text);
    RunCacheOptions options;
    options.every = spec.number("every", options.every);
    options.first = spec.number("first", options.first);
    const auto begin = spec.number<int64_t>("from", layers / 4);
    const auto end = spec.number<int64_t>("to", layers - 1 - layers / 4);
    spec.done();
    require(begin >= 0 && begin <= end && end < layers,
            "[method] cache \"{}\": layers {} to {} found, expected some of 0 to {}", text, begin,
            end, layers - 1);
    for (int64_t layer = begin; layer <= end; ++layer) options.layers.push_back(layer);
    return run_cache(layers, options);
}

}  // namespace

DitHooks ClipMethod::hooks(int step, int steps) {
    DitHooks hooks;
    if (attention) {
        attention->begin_step(step, steps);
        hooks.attention = [this](vk::Stream& stream, int64_t layer, const Tensor& q,
                                 const Tensor& k, const Tensor& v) {
            return attention->attention(stream, {layer, q, k, v});
        };
        hooks.perturbed = [this](vk::Stream& stream, int64_t layer, const Tensor& q,
                                 const Tensor& k, const Tensor& v, const Tensor& strengths) {
            return attention->attention(stream, {layer, q, k, v, strengths});
        };
    }
    if (cache) {
        cache->begin_step(step, steps);
        hooks.part = [this](vk::Stream& stream, const DitPart& part) {
            return cache->part(stream, part);
        };
    }
    return hooks;
}

ClipMethod make_method(const MethodRequest& r, const DitConfig& model, const DitGrid& grid) {
    require(r.dense_steps >= 0, "[method] {} dense steps found, expected 0 or more", r.dense_steps);
    for (const int layer : r.dense_layers)
        require(layer >= 0 && layer < model.layers,
                "[method] dense layer {} found, expected layers from 0 to {}", layer,
                model.layers - 1);
    ClipMethod method;
    method.attention = attention_method(r, model, grid_of(grid));
    if (r.dense_steps > 0 || !r.dense_layers.empty())
        method.attention = with_dense(std::move(method.attention), r.dense_steps, r.dense_layers);
    method.cache = feature_cache(r.cache, model.layers);
    return method;
}

std::vector<std::string> method_help() {
    return {
        "reordered: the orders and masks of a file of fovea calibrate (--calibration)",
        "rectified[:keep=0.2][:mass=0.3][:block=B][:rectify=1]: blocks selected at every step, "
        "what "
        "is left out made up for",
        "rettention[:every=5][:growth=0.04]:of=PATTERN: a pattern, corrected by what it missed in "
        "the last dense step",
    };
}

std::vector<std::string> cache_help() {
    return {
        "runs[:from=L][:to=L][:every=3][:first=4]: the residual of these layers stands for them "
        "between every third step, from the fifth on (default: the middle half of the layers)",
        "threshold[:change=0.15]: the residual of all layers stands for them until their input has "
        "changed by this much",
    };
}

uint32_t block_for(uint64_t tokens) {
    uint32_t block = 64;
    while (block > 16 && tokens / block < 64) block /= 2;
    return block;
}

}  // namespace fovea
