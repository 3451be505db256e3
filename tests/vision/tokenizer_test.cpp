#include "vision/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/error.h"
#include "tests/vision/temporary_folder.h"
#include "vision/file.h"

namespace fovea {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Tokenizer& tokenizer() {
    static const Tokenizer kTokenizer = Tokenizer::parse(
        "<pad>\na\nred\ncat\ndog\nbox\nglass\n3d\nof\non\ngrass\nhouse\nbus\nbeach\n", "test");
    return kTokenizer;
}

std::vector<std::string> unknown_words(const Tokenizer::Result& result) {
    std::vector<std::string> words;
    for (const auto& unknown : result.unknown) words.push_back(unknown.word);
    return words;
}

TEST(Tokenizer, ids_are_padded_to_the_length) {
    const auto result = tokenizer().encode("A red CAT, on grass!", 8);
    EXPECT_THAT(result.ids, ElementsAre(1, 2, 3, 9, 10, 0, 0, 0));
    EXPECT_THAT(result.words, ElementsAre("a", "red", "cat", "on", "grass"));
    EXPECT_THAT(result.unknown, IsEmpty());
    EXPECT_FALSE(result.truncated);
}

TEST(Tokenizer, the_empty_prompt_is_all_padding) {
    for (const char* prompt : {"", "  \t\n", "...!?"}) {
        const auto result = tokenizer().encode(prompt, 3);
        EXPECT_THAT(result.ids, ElementsAre(0, 0, 0)) << prompt;
        EXPECT_THAT(result.unknown, IsEmpty()) << prompt;
    }
}

TEST(Tokenizer, endings_are_tried_in_order) {
    // As written first: "glass" and "bus" keep their s. Then without s, then without es.
    EXPECT_THAT(tokenizer().encode("glass bus cats boxes houses beaches glasses", 7).words,
                ElementsAre("glass", "bus", "cat", "box", "house", "beach", "glass"));
    EXPECT_THAT(unknown_words(tokenizer().encode("s es", 2)), ElementsAre("s", "es"));
    const Tokenizer close = Tokenizer::parse("<pad>\nax\naxe\na\nas\n", "test");
    EXPECT_THAT(close.encode("axes as", 2).words, ElementsAre("axe", "as"));
}

TEST(Tokenizer, any_ascii_character_but_letters_and_digits_separates) {
    EXPECT_THAT(tokenizer().encode("red-cat_dog/3D.box", 5).words,
                ElementsAre("red", "cat", "dog", "3d", "box"));
    EXPECT_THAT(tokenizer().encode(std::string_view("red\0cat", 7), 5).words,
                ElementsAre("red", "cat"));
    EXPECT_THAT(tokenizer().encode("<pad> 3d", 2).ids,
                ElementsAre(7, 0));  // no way to write padding
}

TEST(Tokenizer, long_prompts_are_cut_and_say_so) {
    const auto exact = tokenizer().encode("a red cat", 3);
    EXPECT_FALSE(exact.truncated);
    const auto cut = tokenizer().encode("a red cat on grass", 3);
    EXPECT_TRUE(cut.truncated);
    EXPECT_THAT(cut.ids, ElementsAre(1, 2, 3));
    EXPECT_THAT(cut.words, ElementsAre("a", "red", "cat"));
    EXPECT_FALSE(tokenizer().encode("a red cat zebra", 3).truncated);  // dropped anyway
    EXPECT_TRUE(tokenizer().encode("a", 0).truncated);
}

TEST(Tokenizer, unknown_words_come_once_with_suggestions) {
    const auto result = tokenizer().encode("a hosue of glas, Zebra, zebra and a hosue", 8);
    EXPECT_THAT(result.words, ElementsAre("a", "of", "a"));
    EXPECT_THAT(unknown_words(result), ElementsAre("hosue", "glas", "Zebra", "zebra", "and"));
    EXPECT_THAT(result.unknown[0].suggestions, ElementsAre("house"));  // an exchange is one edit
    EXPECT_THAT(result.unknown[1].suggestions, ElementsAre("glass"));
    EXPECT_THAT(result.unknown[2].suggestions, IsEmpty());
}

TEST(Tokenizer, suggestions_are_the_closest_first_and_few) {
    const Tokenizer words =
        Tokenizer::parse("<pad>\nabcdez\nabcdyz\nabcdef\nabcdeg\nabcdeh\n", "test");
    const auto result = words.encode("abcdefx", 1);
    EXPECT_THAT(result.unknown[0].suggestions, ElementsAre("abcdef", "abcdez", "abcdeg"));
    EXPECT_THAT(words.encode(std::string(100'000, 'a'), 1).unknown[0].suggestions, IsEmpty());
}

TEST(Tokenizer, characters_outside_of_ascii_separate_and_are_reported_as_words) {
    const auto result = tokenizer().encode("a café 猫 red猫 Été 🦊", 8);
    EXPECT_THAT(result.words, ElementsAre("a", "red"));
    EXPECT_THAT(unknown_words(result), ElementsAre("café", "猫", "red猫", "Été", "🦊"));
}

TEST(Tokenizer, punctuation_outside_of_ascii_is_not_a_word) {
    const auto result = tokenizer().encode("a “red” cat—on grass… ‘dog’。", 8);
    EXPECT_THAT(result.words, ElementsAre("a", "red", "cat", "on", "grass", "dog"));
    EXPECT_THAT(result.unknown, IsEmpty());
}

TEST(Tokenizer, broken_utf8_is_reported_readably) {
    const auto result = tokenizer().encode("a \xff\xfe cat\xc3", 8);
    EXPECT_THAT(result.words, ElementsAre("a", "cat"));
    EXPECT_THAT(unknown_words(result), ElementsAre("\uFFFD\uFFFD", "cat\uFFFD"));
}

TEST(Tokenizer, reads_a_file_and_refuses_a_wrong_one) {
    const TemporaryFolder folder;
    const auto open = [&](std::string_view text) {
        write_file(folder / "vocabulary.txt", std::as_bytes(std::span(text)));
        return Tokenizer::open(folder / "vocabulary.txt");
    };
    const auto refusal = [&](std::string_view text) -> std::string {
        try {
            open(text);
        } catch (const Error& error) {
            return error.what();
        }
        return "accepted";
    };
    EXPECT_EQ(open("<pad>\r\ncat\r\ndog").encode("dog", 1).ids[0], 2);
    EXPECT_EQ(open("<pad>\ncat\n").size(), 2u);
    EXPECT_THAT(refusal(""), HasSubstr("empty"));
    EXPECT_THAT(refusal("cat\n"), HasSubstr("line 1: expected <pad>, found \"cat\""));
    EXPECT_THAT(refusal("<pad>\ncat\n\ndog\n"), HasSubstr("line 3"));
    EXPECT_THAT(refusal("<pad>\nCat\n"), HasSubstr("found \"Cat\""));
    EXPECT_THAT(refusal("<pad>\ncat\ncat\n"), HasSubstr("line 3: cat stands twice"));
    EXPECT_THROW(Tokenizer::open(folder / "none"), Error);
    EXPECT_THROW(tokenizer().encode("a", -1), Error);
}

}  // namespace
}  // namespace fovea
