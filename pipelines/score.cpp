#include "pipelines/score.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backend/error.h"
#include "vision/transfer.h"

namespace fovea {
namespace {

constexpr float kSeen = 0.5f;  // probability of an object from which a token shows it

// " a red apple on …": lower-case words with single spaces around each, so that phrases match whole
// words.
std::string spaced(std::string_view text) {
    std::string result(1, ' ');
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (std::isalnum(byte))
            result.push_back(static_cast<char>(std::tolower(byte)));
        else if (result.back() != ' ')
            result.push_back(' ');
    }
    if (result.back() != ' ') result.push_back(' ');
    return result;
}

std::vector<float> softmax(std::span<const float> logits) {
    const float largest = *std::max_element(logits.begin(), logits.end());
    std::vector<float> p(logits.size());
    float sum = 0;
    for (size_t i = 0; i < p.size(); ++i) sum += p[i] = std::exp(logits[i] - largest);
    for (float& value : p) value /= sum;
    return p;
}

size_t side_of(size_t tokens) {
    return static_cast<size_t>(std::lround(std::sqrt(static_cast<double>(tokens))));
}

size_t largest(std::span<const float> values) {
    return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

// The prompt without its background phrase, and the colour word in that phrase.
std::string take_background(const Concepts& concepts, std::string& text) {
    const size_t end = text.find(" background ");
    if (end == std::string::npos) return {};
    size_t begin = std::string::npos;
    std::string color;
    for (const auto& name : concepts.colors) {
        const size_t at = text.rfind(fmt::format(" {} ", name), end);
        if (at == std::string::npos || (begin != std::string::npos && at < begin)) continue;
        begin = at;
        color = name;
    }
    if (begin != std::string::npos) text.replace(begin, end - begin, 1, ' ');
    return color;
}

std::vector<SeenObject> rank(std::span<const float> logits, size_t tokens, size_t classes) {
    const size_t side = side_of(tokens);
    std::vector<SeenObject> found(classes - 1);
    for (size_t k = 0; k + 1 < classes; ++k) found[k] = {k, 0, 0, 0, 0};
    for (size_t t = 0; t < tokens; ++t) {
        const auto p = softmax(logits.subspan(t * classes, classes));
        const float x = (static_cast<float>(t % side) + 0.5f) / static_cast<float>(side);
        const float y = (static_cast<float>(t / side) + 0.5f) / static_cast<float>(side);
        for (size_t k = 0; k + 1 < classes; ++k) {
            found[k].mass += p[k];
            found[k].confidence = std::max(found[k].confidence, p[k]);
            found[k].x += p[k] * x;
            found[k].y += p[k] * y;
        }
    }
    for (auto& object : found) {
        object.x /= std::max(object.mass, 1e-9f);
        object.y /= std::max(object.mass, 1e-9f);
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const SeenObject& a, const SeenObject& b) { return a.mass > b.mass; });
    return found;
}

}  // namespace

Concepts Concepts::load(const std::filesystem::path& folder) {
    const auto path = folder / "concepts.json";
    std::ifstream file(path);
    require(file.good(), "[score] {} is missing", path.string());
    const auto json = nlohmann::json::parse(file, nullptr, false);
    require(json.is_object() && json.contains("objects"), "[score] {} is not a list of concepts",
            path.string());
    Concepts concepts;
    json.at("objects").get_to(concepts.objects);
    json.at("styles").get_to(concepts.styles);
    json.at("colors").get_to(concepts.colors);
    json.at("relations").get_to(concepts.relations);
    const auto aliases = json.value("aliases", nlohmann::json::object());
    for (size_t k = 0; k < concepts.objects.size(); ++k) {
        const std::string& name = concepts.objects[k];
        concepts.phrases.emplace_back(spaced(name), k);
        if (aliases.contains(name))
            for (const std::string alias : aliases.at(name))
                concepts.phrases.emplace_back(spaced(alias), k);
    }
    // Longer phrases first: "red apple" before "apple".
    std::stable_sort(concepts.phrases.begin(), concepts.phrases.end(),
                     [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
    return concepts;
}

Wanted read_prompt(const Concepts& concepts, std::string_view prompt) {
    std::string text = spaced(prompt);
    Wanted wanted;
    wanted.color = take_background(concepts, text);
    for (const auto& style : concepts.styles) {
        const size_t at = text.find(fmt::format(" {} style ", style));
        if (at == std::string::npos) continue;
        wanted.style = style;
        text.replace(at, style.size() + 7, 1, ' ');
    }
    std::vector<std::pair<size_t, size_t>> places;  // position in the prompt, object
    for (const auto& [phrase, object] : concepts.phrases)
        for (size_t at = text.find(phrase); at != std::string::npos;
             at = text.find(phrase, at + 1)) {
            places.emplace_back(at, object);
            // Blanked, so that shorter phrases do not match inside; the same length keeps
            // positions.
            std::fill(text.begin() + static_cast<std::ptrdiff_t>(at) + 1,
                      text.begin() + static_cast<std::ptrdiff_t>(at + phrase.size()) - 1, '#');
        }
    std::sort(places.begin(), places.end());
    for (const auto& [at, object] : places) wanted.objects.push_back(object);
    if (wanted.objects.size() >= 2)
        for (const auto& relation : concepts.relations)
            if (text.find(fmt::format(" {} ", relation)) != std::string::npos)
                wanted.relation = relation;
    return wanted;
}

std::string relation_between(const SeenObject& a, const SeenObject& b) {
    const float dx = a.x - b.x, dy = a.y - b.y;
    if (std::abs(dx) > std::abs(dy)) return dx < 0 ? "left" : "right";
    return dy < 0 ? "above" : "below";
}

Verdict judge(const Wanted& wanted, const Seen& seen) {
    Verdict verdict;
    const auto find = [&](size_t object) {
        return std::find_if(seen.objects.begin(), seen.objects.end(),
                            [&](const SeenObject& s) { return s.object == object; });
    };
    if (!wanted.objects.empty()) {
        verdict.objects = true;
        for (const size_t object : wanted.objects)
            if (find(object) >=
                seen.objects.begin() + static_cast<std::ptrdiff_t>(wanted.objects.size()))
                verdict.objects = false;
    }
    if (!wanted.color.empty()) verdict.color = wanted.color == seen.color;
    if (!wanted.style.empty()) verdict.style = wanted.style == seen.style;
    if (!wanted.relation.empty())
        verdict.relation =
            relation_between(*find(wanted.objects[0]), *find(wanted.objects[1])) == wanted.relation;
    return verdict;
}

double rating(const Wanted& wanted, const Seen& seen) {
    double sum = 0;
    int count = 0;
    for (const size_t object : wanted.objects) {
        const auto found = std::find_if(seen.objects.begin(), seen.objects.end(),
                                        [&](const SeenObject& s) { return s.object == object; });
        sum += found->confidence;
        ++count;
    }
    const auto add = [&](const std::string& asked, const std::string& found, float confidence) {
        if (asked.empty()) return;
        sum += asked == found ? confidence : 0;
        ++count;
    };
    add(wanted.color, seen.color, seen.color_confidence);
    add(wanted.style, seen.style, seen.style_confidence);
    return count == 0 ? seen.objects[0].confidence : sum / count;
}

std::vector<std::string> plain_prompts(const Concepts& concepts, int count) {
    std::vector<std::string> prompts;
    const size_t objects = concepts.objects.size(), colors = concepts.colors.size();
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
        // Far apart in the list, in which neighbours are alike; 131 is prime to any number of
        // objects but its multiples.
        const std::string& object = concepts.objects[i * 131 % objects];
        prompts.push_back(fmt::format("a {} on a {} background", object,
                                      concepts.colors[(i + i / objects) % colors]));
    }
    return prompts;
}

Image as_saved(const Image& picture) {
    Image saved = picture;
    for (float& value : saved.rgb) value = std::round(std::clamp(value, 0.0f, 1.0f) * 255) / 255;
    return saved;
}

Scorer::Scorer(vk::Stream& stream, const std::filesystem::path& model_folder, DType dtype)
    : concepts_(Concepts::load(model_folder)),
      evaluator_(stream, Weights::open(model_folder / "evaluator.safetensors"), dtype),
      dtype_(dtype) {
    require(evaluator_.config().objects == static_cast<int64_t>(concepts_.objects.size()),
            "[score] the evaluator knows {} objects, concepts.json lists {}",
            evaluator_.config().objects, concepts_.objects.size());
}

Evaluator::Logits Scorer::read(vk::Stream& stream, const std::vector<Image>& pictures) const {
    const int side = static_cast<int>(evaluator_.config().size);
    std::vector<Image> small;
    for (const auto& picture : pictures) small.push_back(resize(picture, side, side));
    return evaluator_.forward(stream, to_device(stream, small, dtype_));
}

std::vector<std::optional<LayoutBox>> Scorer::locate(vk::Stream& stream, const Image& picture,
                                                     const std::vector<size_t>& objects) const {
    const auto logits = read(stream, {picture});
    const auto tokens = static_cast<size_t>(logits.objects.dim(1)),
               classes = static_cast<size_t>(logits.objects.dim(2));
    const size_t side = side_of(tokens);
    const auto values = to_host(stream, logits.objects);
    std::vector<std::vector<float>> p;
    for (size_t t = 0; t < tokens; ++t)
        p.push_back(softmax(std::span(values).subspan(t * classes, classes)));
    std::vector<std::optional<LayoutBox>> found;
    for (const size_t object : objects) {
        size_t x0 = side, y0 = side, x1 = 0, y1 = 0;
        for (size_t t = 0; t < tokens; ++t) {
            if (p[t][object] < kSeen) continue;
            x0 = std::min(x0, t % side);
            y0 = std::min(y0, t / side);
            x1 = std::max(x1, t % side + 1);
            y1 = std::max(y1, t / side + 1);
        }
        found.emplace_back();
        if (x1 == 0) continue;
        const auto pixel = [&](size_t at, int extent) {
            return static_cast<int>(at * static_cast<size_t>(extent) / side);
        };
        found.back() = {.name = concepts_.objects[object],
                        .x0 = pixel(x0, picture.width),
                        .y0 = pixel(y0, picture.height),
                        .x1 = pixel(x1, picture.width),
                        .y1 = pixel(y1, picture.height)};
    }
    return found;
}

std::vector<Seen> Scorer::look(vk::Stream& stream, const std::vector<Image>& pictures) const {
    const auto& config = evaluator_.config();
    const auto logits = read(stream, pictures);
    const auto objects = to_host(stream, logits.objects);
    const auto color = to_host(stream, logits.color), style = to_host(stream, logits.style);

    const auto tokens = static_cast<size_t>(logits.objects.dim(1));
    const auto classes = static_cast<size_t>(logits.objects.dim(2));
    std::vector<Seen> result;
    for (size_t i = 0; i < pictures.size(); ++i) {
        const auto part = [&](const std::vector<float>& all, size_t n) {
            return softmax(std::span(all).subspan(i * n, n));
        };
        const auto p_color = part(color, config.colors.size());
        const auto p_style = part(style, config.styles.size());
        const size_t best_color = largest(p_color), best_style = largest(p_style);
        result.push_back(
            {.objects = rank(std::span(objects).subspan(i * tokens * classes, tokens * classes),
                             tokens, classes),
             .color = config.colors[best_color],
             .style = config.styles[best_style],
             .color_confidence = p_color[best_color],
             .style_confidence = p_style[best_style]});
    }
    return result;
}

}  // namespace fovea
