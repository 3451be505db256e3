#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "vision/tokenizer.h"

/// Words of prompts as places among their tokens, and how two prompts' words correspond. Words are
/// as the vocabulary has them: "apples" is "apple".
namespace fovea {

/// Where a phrase's words stand in the prompt, one after the other; of several, the first. Throws
/// Error that lists the prompt's words where it is not there.
std::vector<size_t> find_phrase(const Tokenizer& tokenizer, const std::vector<std::string>& prompt,
                                std::string_view phrase);

bool has_phrase(const Tokenizer& tokenizer, const std::vector<std::string>& prompt,
                std::string_view phrase);

/// Articles and such, which name nothing that a picture shows.
bool names_nothing(std::string_view word);

/// The words of two prompts side by side: what they share by the longest common subsequence, and
/// the stretches between, which are exchanged, added (no source word) or left out (no target word).
struct PromptChange {
    struct Stretch {
        size_t begin = 0, end = 0;
        size_t size() const { return end - begin; }
    };
    struct Exchange {
        Stretch source, target;
    };
    std::vector<std::pair<size_t, size_t>> shared;  ///< (source, target), both rising
    std::vector<Exchange> exchanged;

    /// Places of changed words that name something.
    std::vector<size_t> source_places(const std::vector<std::string>& source) const;
    std::vector<size_t> target_places(const std::vector<std::string>& target) const;
};

PromptChange compare_prompts(const std::vector<std::string>& source,
                             const std::vector<std::string>& target);

/// Which source token each target token takes its attention map from, as weights (length source
/// tokens, length target tokens), row-major; a column of 0 keeps the target's own. Shared words
/// take that of the word itself; with `exchange`, exchanged words take those they stand for, evenly
/// where the numbers differ (Prompt-to-Prompt, arXiv 2208.01626: refinement and replacement);
/// padding that both have takes padding.
std::vector<float> token_mapping(const PromptChange& change, size_t source_words,
                                 size_t target_words, size_t length, bool exchange);

}  // namespace fovea
