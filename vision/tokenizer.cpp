#include "vision/tokenizer.h"

#include <algorithm>
#include <utility>

#include "backend/error.h"
#include "vision/file.h"
#include "vision/utf8.h"

namespace fovea {

namespace {

constexpr size_t kMaxVocabularyBytes = size_t{1} << 24;
constexpr size_t kMaxSuggestions = 3;
constexpr size_t kMaxSuggestedLength = 32;  // longer words are not typing mistakes

char lower(char letter) {
    return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
}

bool is_word_letter(char letter) {
    return (letter >= 'a' && letter <= 'z') || (letter >= '0' && letter <= '9');
}

/// Spaces, dashes, quotes and the like outside of ASCII: Latin-1 and general punctuation, arrows to
/// dingbats' frame characters, CJK and full-width punctuation, byte-order mark, variation
/// selectors.
bool is_separator(char32_t code) {
    static constexpr std::pair<char32_t, char32_t> kRanges[] = {
        {0x80, 0xa9},     {0xab, 0xb4},     {0xb6, 0xb9},     {0xbb, 0xbf},
        {0xd7, 0xd7},     {0xf7, 0xf7},     {0x2000, 0x206f}, {0x2190, 0x23ff},
        {0x2500, 0x257f}, {0x3000, 0x3004}, {0x3008, 0x3020}, {0xfe00, 0xfe0f},
        {0xfe30, 0xfe4f}, {0xff01, 0xff0f}, {0xff1a, 0xff20}, {0xfeff, 0xfeff}};
    return std::any_of(std::begin(kRanges), std::end(kRanges),
                       [code](auto range) { return code >= range.first && code <= range.second; });
}

/// A stretch of the prompt without spaces or punctuation, and the runs of [a-z0-9] in it.
struct Stretch {
    std::string written;
    std::vector<std::string> runs;
    bool only_ascii = true;
};

std::vector<Stretch> split(std::string_view prompt) {
    std::vector<Stretch> stretches;
    Stretch current;
    bool in_run = false;
    const auto finish = [&] {
        if (!current.written.empty()) stretches.push_back(std::exchange(current, {}));
        in_run = false;
    };
    while (!prompt.empty()) {
        const CodePoint next = first_code_point(prompt);
        const std::string_view bytes = prompt.substr(0, next.bytes);
        prompt.remove_prefix(next.bytes);
        const char letter = lower(bytes[0]);
        if (next.value >= 0x80 && !is_separator(next.value)) {
            current.written += next.valid ? bytes : "\xef\xbf\xbd";  // U+FFFD
            current.only_ascii = false;
            in_run = false;
        } else if (next.value < 0x80 && is_word_letter(letter)) {
            if (!std::exchange(in_run, true)) current.runs.emplace_back();
            current.runs.back() += letter;
            current.written += bytes;
        } else {
            finish();
        }
    }
    finish();
    return stretches;
}

/// Edit distance with exchanges of neighbours (optimal string alignment), or `limit` + 1 when it is
/// above.
size_t edit_distance(std::string_view a, std::string_view b, size_t limit) {
    if (std::max(a.size(), b.size()) - std::min(a.size(), b.size()) > limit) return limit + 1;
    std::vector<size_t> before_last, last(b.size() + 1), current(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
        current[0] = i;
        for (size_t j = 1; j <= b.size(); ++j) {
            const size_t change = last[j - 1] + (a[i - 1] != b[j - 1] ? 1 : 0);
            current[j] = std::min({last[j] + 1, current[j - 1] + 1, change});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                current[j] = std::min(current[j], before_last[j - 2] + 1);
        }
        before_last = std::exchange(last, current);
    }
    return std::min(last[b.size()], limit + 1);
}

}  // namespace

Tokenizer Tokenizer::open(const std::filesystem::path& path) {
    const std::vector<std::byte> bytes = read_file(path, kMaxVocabularyBytes);
    return parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

Tokenizer Tokenizer::parse(std::string_view vocabulary, const std::string& name) {
    Tokenizer tokenizer;
    for (size_t line = 1; !vocabulary.empty(); ++line) {
        const size_t end = vocabulary.find('\n');
        std::string_view word = vocabulary.substr(0, end);
        vocabulary.remove_prefix(end == vocabulary.npos ? vocabulary.size() : end + 1);
        if (word.ends_with('\r')) word.remove_suffix(1);
        const bool valid =
            line == 1 ? word == "<pad>"
                      : !word.empty() && std::all_of(word.begin(), word.end(), is_word_letter);
        require(valid, "[tokenizer] {} line {}: expected {}, found {:?}", name, line,
                line == 1 ? "<pad>" : "one word of a-z and 0-9", word.substr(0, 60));
        const auto id = static_cast<int32_t>(tokenizer.words_.size());
        require(tokenizer.ids_.emplace(word, id).second, "[tokenizer] {} line {}: {} stands twice",
                name, line, word);
        tokenizer.words_.emplace_back(word);
    }
    require(!tokenizer.words_.empty(),
            "[tokenizer] {}: expected a word a line, found an empty file", name);
    return tokenizer;
}

Tokenizer::Result Tokenizer::encode(std::string_view prompt, int length) const {
    require(length >= 0, "[tokenizer] expected a length of at least 0, found {}", length);
    Result result;
    result.ids.assign(static_cast<size_t>(length), 0);
    const auto report = [&](const std::string& word, std::string_view like) {
        const bool known = std::any_of(result.unknown.begin(), result.unknown.end(),
                                       [&](const Unknown& entry) { return entry.word == word; });
        if (!known) result.unknown.push_back({word, closest(like)});
    };
    for (const Stretch& stretch : split(prompt)) {
        for (const std::string& run : stretch.runs) {
            const int32_t id = find(run);
            if (id < 0) {
                if (stretch.only_ascii) report(stretch.written, run);
            } else if (result.words.size() == result.ids.size()) {
                result.truncated = true;
            } else {
                result.ids[result.words.size()] = id;
                result.words.push_back(words_[static_cast<size_t>(id)]);
            }
        }
        if (stretch.only_ascii) continue;
        std::string letters;
        for (const std::string& run : stretch.runs) letters += run;
        report(stretch.written, letters);
    }
    return result;
}

/// The id, or -1.
int32_t Tokenizer::find(std::string_view word) const {
    for (const std::string_view ending : {"", "s", "es"}) {
        if (!word.ends_with(ending)) continue;
        const auto found = ids_.find(std::string(word.substr(0, word.size() - ending.size())));
        if (found != ids_.end()) return found->second;
    }
    return -1;
}

/// Known words within a third of the word's length in edits, at least 1.
std::vector<std::string> Tokenizer::closest(std::string_view word) const {
    if (word.empty() || word.size() > kMaxSuggestedLength) return {};
    const size_t limit = std::max<size_t>(1, word.size() / 3);
    std::vector<std::pair<size_t, const std::string*>> candidates;
    for (size_t id = 1; id < words_.size(); ++id) {
        const size_t distance = edit_distance(word, words_[id], limit);
        // One edit makes any two-letter word of any other.
        if (distance <= limit && distance < std::min(word.size(), words_[id].size()))
            candidates.emplace_back(distance, &words_[id]);
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<std::string> suggestions;
    for (size_t i = 0; i < std::min(candidates.size(), kMaxSuggestions); ++i)
        suggestions.push_back(*candidates[i].second);
    return suggestions;
}

}  // namespace fovea
