#include "vision/prompt_words.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "backend/error.h"

namespace fovea {
namespace {

constexpr std::array<std::string_view, 13> kNameNothing{
    "a", "an", "and", "at", "by", "in", "next", "of", "on", "picture", "the", "to", "with"};

std::vector<size_t> places(const std::vector<std::string>& words,
                           const PromptChange::Stretch& stretch) {
    std::vector<size_t> result;
    for (size_t i = stretch.begin; i < stretch.end; ++i)
        if (!names_nothing(words[i])) result.push_back(i);
    return result;
}

}  // namespace

bool names_nothing(std::string_view word) {
    return std::find(kNameNothing.begin(), kNameNothing.end(), word) != kNameNothing.end();
}

namespace {

// First place and number of words; none where the phrase is not there.
PromptChange::Stretch phrase_in(const Tokenizer& tokenizer, const std::vector<std::string>& prompt,
                                std::string_view phrase) {
    const auto asked = tokenizer.encode(phrase, static_cast<int>(prompt.size()) + 1);
    if (asked.words.empty() || !asked.unknown.empty()) return {};
    const auto at =
        std::search(prompt.begin(), prompt.end(), asked.words.begin(), asked.words.end());
    if (at == prompt.end()) return {};
    const auto begin = static_cast<size_t>(at - prompt.begin());
    return {begin, begin + asked.words.size()};
}

}  // namespace

bool has_phrase(const Tokenizer& tokenizer, const std::vector<std::string>& prompt,
                std::string_view phrase) {
    return phrase_in(tokenizer, prompt, phrase).size() > 0;
}

std::vector<size_t> find_phrase(const Tokenizer& tokenizer, const std::vector<std::string>& prompt,
                                std::string_view phrase) {
    const auto stretch = phrase_in(tokenizer, prompt, phrase);
    require(stretch.size() > 0, "[words] \"{}\" is not in the prompt, whose words are: {}", phrase,
            fmt::join(prompt, " "));
    std::vector<size_t> result(stretch.size());
    std::iota(result.begin(), result.end(), stretch.begin);
    return result;
}

std::vector<size_t> PromptChange::source_places(const std::vector<std::string>& source) const {
    std::vector<size_t> result;
    for (const auto& exchange : exchanged)
        for (const size_t place : places(source, exchange.source)) result.push_back(place);
    return result;
}

std::vector<size_t> PromptChange::target_places(const std::vector<std::string>& target) const {
    std::vector<size_t> result;
    for (const auto& exchange : exchanged)
        for (const size_t place : places(target, exchange.target)) result.push_back(place);
    return result;
}

PromptChange compare_prompts(const std::vector<std::string>& source,
                             const std::vector<std::string>& target) {
    // longest[i][j]: of what begins at source[i] and target[j].
    std::vector<std::vector<size_t>> longest(source.size() + 1,
                                             std::vector<size_t>(target.size() + 1));
    for (size_t i = source.size(); i-- > 0;)
        for (size_t j = target.size(); j-- > 0;)
            longest[i][j] = source[i] == target[j] ? longest[i + 1][j + 1] + 1
                                                   : std::max(longest[i + 1][j], longest[i][j + 1]);
    PromptChange change;
    size_t i = 0, j = 0, from = 0, to = 0;
    const auto close = [&] {
        if (i > from || j > to) change.exchanged.push_back({{from, i}, {to, j}});
    };
    while (i < source.size() && j < target.size()) {
        if (source[i] == target[j]) {
            close();
            change.shared.emplace_back(i, j);
            from = ++i;
            to = ++j;
        } else if (longest[i + 1][j] >= longest[i][j + 1]) {
            ++i;
        } else {
            ++j;
        }
    }
    i = source.size();
    j = target.size();
    close();
    return change;
}

std::vector<float> token_mapping(const PromptChange& change, size_t source_words,
                                 size_t target_words, size_t length, bool exchange) {
    std::vector<float> mapping(length * length);
    for (const auto& [source, target] : change.shared) mapping[source * length + target] = 1;
    for (size_t i = std::max(source_words, target_words); i < length; ++i)
        mapping[i * length + i] = 1;
    if (!exchange) return mapping;
    for (const auto& [source, target] : change.exchanged) {
        if (source.size() == 0 || target.size() == 0) continue;
        for (size_t i = source.begin; i < source.end; ++i)
            for (size_t j = target.begin; j < target.end; ++j) {
                const bool even = source.size() != target.size();
                if (even || i - source.begin == j - target.begin)
                    mapping[i * length + j] = even ? 1 / static_cast<float>(source.size()) : 1;
            }
    }
    return mapping;
}

}  // namespace fovea
