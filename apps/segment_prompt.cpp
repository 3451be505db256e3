#include "apps/segment_prompt.h"

#include <cmath>
#include <cstdlib>
#include <sstream>
#include <vector>

#include "backend/error.h"

namespace fovea::apps {
namespace {

// "120,80" → numbers.
std::vector<float> numbers(const std::string& what, const std::string& text, size_t count,
                           const char* example) {
    std::vector<float> values;
    std::istringstream in(text);
    std::string part;
    bool good = !text.empty() && text.back() != ',';
    while (good && std::getline(in, part, ',')) {
        char* end = nullptr;
        values.push_back(std::strtof(part.c_str(), &end));
        good = !part.empty() && *end == 0 && std::isfinite(values.back());
    }
    require(good && values.size() % count == 0,
            "[segment] {} {} found, expected pixels from the upper left as in {}", what, text,
            example);
    return values;
}

}  // namespace

void add_points(SegmentPrompt& prompt, const std::string& what, const std::string& text,
                bool positive) {
    const auto values = numbers(what, text, 2, "120,80");
    for (size_t i = 0; i < values.size(); i += 2)
        prompt.points.push_back(
            {.x = values[i] + 0.5f, .y = values[i + 1] + 0.5f, .positive = positive});
}

void set_box(SegmentPrompt& prompt, const std::string& what, const std::string& text) {
    const auto values = numbers(what, text, 4, "40,40,200,200");
    require(values.size() == 4, "[segment] {} {} found, expected one LEFT,TOP,RIGHT,BOTTOM", what,
            text);
    prompt.box = {.left = values[0], .top = values[1], .right = values[2], .bottom = values[3]};
}

SegmentPrompt read_prompt(const std::string& line, const SegmentPrompt& earlier) {
    SegmentPrompt prompt;
    std::istringstream in(line);
    std::string word, value;
    bool box = false;
    while (in >> word) {
        if (word == "correct") {
            require(earlier.earlier.has_value(),
                    "[segment] correct: there is no answer to correct");
            require(
                prompt.empty(),
                "[segment] \"{}\" found, expected correct before what it is corrected by, as in "
                "correct point 30,40",
                line);
            prompt = earlier;
        } else if (word == "words" || word == "search") {
            std::getline(in >> std::ws, prompt.words);
            prompt.search = word == "search";
        } else if ((word == "point" || word == "negative" || word == "box") && in >> value) {
            if (word == "box") {
                require(!box, "[segment] \"{}\" found, expected one box", line);
                set_box(prompt, word, value);  // in place of the one that is corrected
                box = true;
            } else {
                add_points(prompt, word, value, word == "point");
            }
        } else {
            fail(
                "[segment] \"{}\" found, expected point X,Y; negative X,Y; box L,T,R,B; words "
                "WORDS; search WORDS; correct and one of these; save FILE.png; quit",
                line);
        }
    }
    return prompt;
}

}  // namespace fovea::apps
