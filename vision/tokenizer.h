#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

/// Words to token ids, as docs/model-format.md defines for the text encoder: lower case, runs of
/// [a-z0-9], each looked up as written, then without a final "s", then without a final "es"; what
/// is still unknown is dropped. A model with a small vocabulary understands few words, so what was
/// dropped is reported with the closest words it does know.
namespace fovea {

class Tokenizer {
  public:
    /// Reads vocabulary.txt: one word a line, the line number from 0 is the id, line 0 is "<pad>".
    /// Throws Error naming the file and line when it is not that.
    static Tokenizer open(const std::filesystem::path& path);
    /// The same from memory; `name` stands for the file in messages.
    static Tokenizer parse(std::string_view vocabulary, const std::string& name);

    struct Unknown {
        std::string word;                      // as written in the prompt, for example "Café"
        std::vector<std::string> suggestions;  // at most 3 known words, closest first; may be empty
    };
    struct Result {
        std::vector<int32_t> ids;        // exactly `length`, padded with 0
        std::vector<std::string> words;  // the known words behind the ids, as in the vocabulary
        std::vector<Unknown> unknown;    // each once, in the order of the prompt
        bool truncated = false;          // known words beyond `length` were dropped
    };
    /// Characters outside of ASCII separate words like spaces do; those that are letters or
    /// pictures rather than punctuation are reported, with the letters around them, as one unknown
    /// word.
    Result encode(std::string_view prompt, int length) const;

    /// Number of ids: the rows of the text encoder's token table.
    size_t size() const { return words_.size(); }

  private:
    int32_t find(std::string_view word) const;
    std::vector<std::string> closest(std::string_view word) const;

    std::vector<std::string> words_;  // by id
    std::unordered_map<std::string, int32_t> ids_;
};

}  // namespace fovea
