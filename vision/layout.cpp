#include "vision/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>

#include "backend/error.h"
#include "vision/mask.h"
#include "vision/prompt_words.h"

namespace fovea {
namespace {

// Words between names, beside those of names_nothing().
constexpr std::array<std::string_view, 10> kBetween{"left",  "right",  "above", "below", "over",
                                                    "under", "beside", "side",  "is",    "are"};

bool is_article(const std::string& word) {
    return word == "a" || word == "an" || word == "the";
}

bool is_between(const std::string& word) {
    return (names_nothing(word) && !is_article(word)) ||
           std::find(kBetween.begin(), kBetween.end(), word) != kBetween.end();
}

}  // namespace

LayoutBox parse_box(const std::string& text) {
    LayoutBox box;
    const size_t at = text.rfind('=');
    int end = 0;
    const bool good = at != std::string::npos && at > 0 &&
                      std::sscanf(text.c_str() + at + 1, "%d,%d,%d,%d%n", &box.x0, &box.y0, &box.x1,
                                  &box.y1, &end) == 4 &&
                      at + 1 + static_cast<size_t>(end) == text.size();
    require(good, "[box] {} found, expected NAME=X0,Y0,X1,Y1 in pixels as in apple=20,30,120,140",
            text);
    box.name = text.substr(0, at);
    return box;
}

Subject load_subject(const std::string& text) {
    const size_t at = text.find('=');
    require(at != std::string::npos && at > 0 && at + 1 < text.size(),
            "[subject] {} found, expected NAME=PICTURE.png as in apple=cutout.png", text);
    const std::string file = text.substr(at + 1);
    Subject subject{text.substr(0, at), load_image(file), load_opacity(file)};
    require(!subject.opacity.empty(),
            "[subject] {0} is opaque all over, expected transparent surroundings; cut it out with "
            "fovea segment {0} \"{1}\" --cutout cutout.png",
            file, subject.name);
    require(mask_of(subject.opacity, subject.picture.width, subject.picture.height).count() <
                std::ssize(subject.opacity),
            "[subject] {} is transparent all over, expected a thing in it", file);
    return subject;
}

std::string to_text(const LayoutBox& box) {
    return fmt::format("{}={},{},{},{}", box.name, box.x0, box.y0, box.x1, box.y1);
}

void validate(const std::vector<LayoutBox>& boxes, int width, int height) {
    for (const LayoutBox& box : boxes) {
        require(box.x1 > box.x0 && box.y1 > box.y0,
                "[box] {} is empty, expected x0 < x1 and y0 < y1", to_text(box));
        require(box.x0 >= 0 && box.y0 >= 0 && box.x1 <= width && box.y1 <= height,
                "[box] {} reaches beyond the picture of {}x{}", to_text(box), width, height);
    }
}

double overlap(const LayoutBox& a, const LayoutBox& b) {
    const double w = std::min(a.x1, b.x1) - std::max(a.x0, b.x0),
                 h = std::min(a.y1, b.y1) - std::max(a.y0, b.y0);
    const double both = std::max(w, 0.0) * std::max(h, 0.0);
    const auto area = [](const LayoutBox& x) {
        return static_cast<double>(x.x1 - x.x0) * (x.y1 - x.y0);
    };
    const double all = area(a) + area(b) - both;
    return all > 0 ? both / all : 0;
}

LayoutTexts split_prompt(const Tokenizer& tokenizer, const std::vector<std::string>& words,
                         const std::vector<LayoutBox>& boxes) {
    LayoutTexts texts;
    std::vector<bool> named(words.size(), false);  // by a name and what belongs to it
    std::vector<std::vector<std::string>> own;
    size_t last = 0;
    for (size_t b = 0; b < boxes.size(); ++b) {
        auto places = find_phrase(tokenizer, words, boxes[b].name);
        for (size_t before = 0; before < b; ++before) {
            if (boxes[before].name != boxes[b].name) continue;
            const size_t next = texts.places[before].back() + 1;
            const std::vector<std::string> rest(words.begin() + static_cast<std::ptrdiff_t>(next),
                                                words.end());
            places = texts.places[before];
            if (!has_phrase(tokenizer, rest, boxes[b].name)) continue;
            places = find_phrase(tokenizer, rest, boxes[b].name);
            for (size_t& place : places) place += next;
        }
        size_t begin = places.front();
        while (begin > 0 && !is_between(words[begin - 1]) && !named[begin - 1]) {
            --begin;
            if (is_article(words[begin])) break;
        }
        own.emplace_back(words.begin() + static_cast<std::ptrdiff_t>(begin),
                         words.begin() + static_cast<std::ptrdiff_t>(places.back() + 1));
        for (size_t i = begin; i <= places.back(); ++i) named[i] = true;
        last = std::max(last, places.back() + 1);
        texts.places.push_back(std::move(places));
    }
    const std::vector<std::string> tail(words.begin() + static_cast<std::ptrdiff_t>(last),
                                        words.end());
    for (auto& phrase : own) {
        phrase.insert(phrase.end(), tail.begin(), tail.end());
        texts.inside.push_back(std::move(phrase));
    }
    for (size_t i = 0; i < words.size(); ++i) {
        if (named[i]) continue;
        // "and" and its like go with the name behind or before them, but "on" stays with its
        // background.
        const bool joins = is_between(words[i]) && words[i] != "on" && words[i] != "in";
        const bool beside = (i > 0 && named[i - 1]) || (i + 1 < words.size() && named[i + 1]);
        if (joins && beside) {
            named[i] = true;
            continue;
        }
        texts.outside.push_back(words[i]);
    }
    return texts;
}

std::vector<bool> tokens_in(const LayoutBox& box, int64_t rows, int64_t columns, int width,
                            int height) {
    std::vector<bool> inside(static_cast<size_t>(rows * columns), false);
    const double w = static_cast<double>(width) / static_cast<double>(columns),
                 h = static_cast<double>(height) / static_cast<double>(rows);
    for (int64_t y = 0; y < rows; ++y)
        for (int64_t x = 0; x < columns; ++x) {
            const double cx = (static_cast<double>(x) + 0.5) * w,
                         cy = (static_cast<double>(y) + 0.5) * h;
            inside[static_cast<size_t>(y * columns + x)] =
                cx >= box.x0 && cx < box.x1 && cy >= box.y0 && cy < box.y1;
        }
    const auto y = static_cast<int64_t>((box.y0 + box.y1) / 2.0 / h),
               x = static_cast<int64_t>((box.x0 + box.x1) / 2.0 / w);
    inside[static_cast<size_t>(std::min(y, rows - 1) * columns + std::min(x, columns - 1))] = true;
    return inside;
}

}  // namespace fovea
