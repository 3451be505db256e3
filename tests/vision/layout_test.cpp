#include "vision/layout.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>

#include "backend/error.h"

namespace fovea {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename Work>
std::string error_of(const Work& work) {
    try {
        work();
    } catch (const Error& error) {
        return error.what();
    }
    return {};
}

TEST(LayoutBox, IsReadAndWritten) {
    const LayoutBox box = parse_box("birthday cake=20,30,120,140");
    EXPECT_EQ(box.name, "birthday cake");
    EXPECT_EQ(to_text(box), "birthday cake=20,30,120,140");
    for (const char* text : {"apple", "=1,2,3,4", "apple=1,2,3", "apple=1,2,3,4,5", "apple=1,2,3,x",
                             "apple=1;2;3;4", ""})
        EXPECT_THAT(error_of([&] { parse_box(text); }), HasSubstr("expected NAME=X0,Y0,X1,Y1"))
            << text;
}

TEST(LayoutBox, LiesInThePicture) {
    const auto message = [](const char* text) {
        return error_of([&] { validate({parse_box(text)}, 256, 128); });
    };
    EXPECT_EQ(message("a=0,0,256,128"), "");
    EXPECT_THAT(message("a=10,0,10,20"), HasSubstr("is empty, expected x0 < x1"));
    EXPECT_THAT(message("a=10,30,20,20"), HasSubstr("is empty"));
    EXPECT_THAT(message("a=-1,0,10,20"), HasSubstr("beyond the picture of 256x128"));
    EXPECT_THAT(message("a=0,0,10,129"), HasSubstr("beyond the picture of 256x128"));
}

TEST(LayoutBox, OverlapIsOfBothTogether) {
    const LayoutBox a = parse_box("a=0,0,20,10");
    EXPECT_EQ(overlap(a, a), 1);
    EXPECT_EQ(overlap(a, parse_box("b=20,0,40,10")), 0);
    EXPECT_DOUBLE_EQ(overlap(a, parse_box("b=10,0,30,10")), 1.0 / 3);
    EXPECT_EQ(overlap(a, parse_box("b=40,40,50,50")), 0);
}

TEST(LayoutBox, TokensAreThoseWhoseMiddleIsInside) {
    EXPECT_THAT(tokens_in(parse_box("a=9,0,40,16"), 2, 3, 48, 32),
                ElementsAre(false, true, false, false, false, false));
    EXPECT_THAT(tokens_in(parse_box("a=7,0,40,25"), 2, 3, 48, 32),
                ElementsAre(true, true, false, true, true, false));
    // Too small for any middle: the token around it.
    EXPECT_THAT(tokens_in(parse_box("a=44,28,48,32"), 2, 3, 48, 32),
                ElementsAre(false, false, false, false, false, true));
}

class SplitPromptTest : public ::testing::Test {
  protected:
    /// "inside | inside | outside"
    std::string split(const std::string& prompt, const std::vector<std::string>& names) {
        std::vector<LayoutBox> boxes;
        for (const auto& name : names) boxes.push_back({name, 0, 0, 16, 16});
        texts_ = split_prompt(tokenizer_, tokenizer_.encode(prompt, 32).words, boxes);
        std::string text;
        for (const auto& inside : texts_.inside)
            text += fmt::format("{} | ", fmt::join(inside, " "));
        return text + fmt::format("{}", fmt::join(texts_.outside, " "));
    }

    Tokenizer tokenizer_ = Tokenizer::open(FOVEA_SOURCE_DIR "/assets/default/vocabulary.txt");
    LayoutTexts texts_;
};

TEST_F(SplitPromptTest, EachBoxHasItsThingAndTheBackground) {
    EXPECT_EQ(split("a red apple and a banana on a blue background, 3d style", {"apple", "banana"}),
              "a red apple on a blue background 3d style | a banana on a blue background 3d style "
              "| on a blue background 3d style");
    EXPECT_THAT(texts_.places, ElementsAre(ElementsAre(2), ElementsAre(5)));
    EXPECT_EQ(split("a cat left of a birthday cake", {"birthday cake", "cat"}),
              "a birthday cake | a cat | ");
    EXPECT_EQ(split("a castle on a pink background", {"castle"}),
              "a castle on a pink background | on a pink background");
}

TEST_F(SplitPromptTest, WhatHasNoBoxIsOutside) {
    EXPECT_EQ(split("an apple next to a dog on a blue background", {"apple"}),
              "an apple next to a dog on a blue background | a dog on a blue background");
}

TEST_F(SplitPromptTest, OneNameMayHaveSeveralBoxes) {
    EXPECT_EQ(split("an apple and an apple", {"apple", "apple"}), "an apple | an apple | ");
    EXPECT_THAT(texts_.places, ElementsAre(ElementsAre(1), ElementsAre(4)));
    split("an apple on a blue background", {"apple", "apple"});
    EXPECT_THAT(texts_.places, ElementsAre(ElementsAre(1), ElementsAre(1)));
    EXPECT_THAT(error_of([&] { split("an apple", {"dragon"}); }),
                HasSubstr("\"dragon\" is not in the prompt, whose words are: an apple"));
}

}  // namespace
}  // namespace fovea
