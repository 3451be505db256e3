#include "vision/prompt_words.h"

#include <gmock/gmock.h>

#include "backend/error.h"

namespace fovea {
namespace {

using ::testing::ElementsAre;
using Words = std::vector<std::string>;

const Tokenizer kTokenizer = Tokenizer::parse(
    "<pad>\na\ncat\ndog\nred\nblue\non\nbackground\nbirthday\ncake\nstyle\n3d\nand\n",
    "vocabulary");

TEST(PromptWords, APhraseIsFoundWhereItsWordsFollow) {
    const Words prompt{"a", "cake", "and", "a", "birthday", "cake"};
    EXPECT_THAT(find_phrase(kTokenizer, prompt, "birthday cakes"), ElementsAre(4, 5));
    EXPECT_THAT(find_phrase(kTokenizer, prompt, "cake"), ElementsAre(1));
    EXPECT_TRUE(has_phrase(kTokenizer, prompt, "A birthday"));
    for (const char* missing : {"dog", "cake birthday", "unicorn", "", "birthday unicorn cake"}) {
        EXPECT_FALSE(has_phrase(kTokenizer, prompt, missing)) << missing;
        try {
            find_phrase(kTokenizer, prompt, missing);
            ADD_FAILURE() << missing;
        } catch (const Error& error) {
            EXPECT_THAT(error.what(), ::testing::HasSubstr("a cake and a birthday cake"));
        }
    }
}

TEST(PromptWords, PromptsAreSharedAndExchangedStretches) {
    const Words source{"a", "red", "cat", "on", "a", "blue", "background"},
        target{"a", "dog", "on", "a", "blue", "background", "3d", "style"};
    const auto change = compare_prompts(source, target);
    EXPECT_THAT(change.shared, ElementsAre(std::pair(0, 0), std::pair(3, 2), std::pair(4, 3),
                                           std::pair(5, 4), std::pair(6, 5)));
    ASSERT_EQ(change.exchanged.size(), 2u);
    EXPECT_THAT(change.source_places(source), ElementsAre(1, 2));
    EXPECT_THAT(change.target_places(target), ElementsAre(1, 6, 7));
    EXPECT_TRUE(compare_prompts(source, source).exchanged.empty());
    EXPECT_THAT(compare_prompts({}, {"a", "cat"}).target_places({"a", "cat"}), ElementsAre(1));
}

TEST(PromptWords, MappingTakesSharedWordsAndPadding) {
    const Words source{"a", "red", "cat"}, target{"a", "dog"};
    const auto change = compare_prompts(source, target);
    // Row: source token, column: target token.
    EXPECT_THAT(token_mapping(change, 3, 2, 4, false), ElementsAre(1, 0, 0, 0,  //
                                                                   0, 0, 0, 0,  //
                                                                   0, 0, 0, 0,  //
                                                                   0, 0, 0, 1));
    EXPECT_THAT(token_mapping(change, 3, 2, 4, true), ElementsAre(1, 0, 0, 0,     //
                                                                  0, 0.5f, 0, 0,  //
                                                                  0, 0.5f, 0, 0,  //
                                                                  0, 0, 0, 1));
    const Words pair{"red", "cat"}, other{"blue", "dog"};
    EXPECT_THAT(token_mapping(compare_prompts(pair, other), 2, 2, 2, true),
                ElementsAre(1, 0, 0, 1));
}

}  // namespace
}  // namespace fovea
