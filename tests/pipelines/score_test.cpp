#include "pipelines/score.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "backend/error.h"
#include "tests/testing.h"

namespace fovea {
namespace {

using ::testing::ElementsAre;

Concepts concepts() {
    return Concepts::load(FOVEA_SOURCE_DIR "/assets/default");
}

std::vector<std::string> names(const Concepts& concepts, const Wanted& wanted) {
    std::vector<std::string> result;
    for (const size_t object : wanted.objects) result.push_back(concepts.objects[object]);
    return result;
}

TEST(Score, ReadsObjectsColourStyleAndRelation) {
    const auto known = concepts();
    const auto wanted = read_prompt(
        known, "A rocket to the left of a red apple on a light blue background, 3d style");
    EXPECT_THAT(names(known, wanted), ElementsAre("rocket", "red apple"));
    EXPECT_EQ(wanted.color, "blue");
    EXPECT_EQ(wanted.style, "3d");
    EXPECT_EQ(wanted.relation, "left");
}

TEST(Score, LongerNamesWinOverTheirParts) {
    const auto known = concepts();
    EXPECT_THAT(names(known, read_prompt(known, "a polar bear above a hot dog")),
                ElementsAre("polar bear", "hot dog"));
}

TEST(Score, AColourThatIsPartOfANameIsNoBackground) {
    const auto known = concepts();
    const auto wanted = read_prompt(known, "a red apple");
    EXPECT_EQ(wanted.color, "");
    EXPECT_EQ(wanted.relation, "");
}

TEST(Score, RelationIsTheLargerOffset) {
    const SeenObject a{0, 1, 1, 0.2f, 0.45f}, b{1, 1, 1, 0.8f, 0.55f}, c{2, 1, 1, 0.25f, 0.9f};
    EXPECT_EQ(relation_between(a, b), "left");
    EXPECT_EQ(relation_between(b, a), "right");
    EXPECT_EQ(relation_between(a, c), "above");
    EXPECT_EQ(relation_between(c, a), "below");
}

TEST(Score, VerdictNeedsEveryWantedObjectInFront) {
    Seen seen{.objects = {{4, 9, 1, 0.2f, 0.5f}, {7, 8, 1, 0.8f, 0.5f}, {1, 1, 1, 0.5f, 0.5f}},
              .color = "blue",
              .style = "3d",
              .color_confidence = 1,
              .style_confidence = 1};
    Wanted wanted{.objects = {7, 4}, .color = "blue", .style = "", .relation = "right"};
    const Verdict good = judge(wanted, seen);
    EXPECT_TRUE(good.objects.value() && good.color.value() && good.relation.value());
    EXPECT_FALSE(good.style.has_value());
    wanted.objects = {7, 1};
    EXPECT_FALSE(judge(wanted, seen).objects.value());
    wanted.color = "red";
    EXPECT_FALSE(judge(wanted, seen).color.value());
}

TEST(Score, ABlankColourIsSeenAsBackgroundOnly) {
    vk::Stream stream(testing::device());
    const Scorer scorer(stream, FOVEA_SOURCE_DIR "/assets/default", DType::f32);
    Image green{.width = 200, .height = 120, .rgb = {}};
    for (int i = 0; i < 200 * 120; ++i) green.rgb.insert(green.rgb.end(), {0.235f, 0.66f, 0.294f});
    const auto seen = scorer.look(stream, {green});
    EXPECT_EQ(seen[0].color, "green");
    EXPECT_LT(seen[0].objects[0].mass, 16);  // of 256 tokens
}

TEST(Score, RatingIsTheMeanConfidenceInWhatIsAsked) {
    const Seen seen{.objects = {{4, 9, 0.9f, 0, 0}, {7, 8, 0.5f, 0, 0}},
                    .color = "blue",
                    .style = "3d",
                    .color_confidence = 0.8f,
                    .style_confidence = 1};
    EXPECT_NEAR(rating({.objects = {7}, .color = "blue"}, seen), (0.5 + 0.8) / 2, 1e-6);
    EXPECT_NEAR(rating({.objects = {4, 7}, .color = "red"}, seen), (0.9 + 0.5) / 3, 1e-6);
    EXPECT_NEAR(rating({}, seen), 0.9, 1e-6);
}

TEST(Score, PlainPromptsAreReadAsTheyAreMeant) {
    const auto known = concepts();
    const auto prompts = plain_prompts(known, 300);
    std::set<size_t> objects;
    for (const auto& prompt : prompts) {
        const auto wanted = read_prompt(known, prompt);
        ASSERT_EQ(wanted.objects.size(), 1u) << prompt;
        EXPECT_NE(wanted.color, "") << prompt;
        objects.insert(wanted.objects[0]);
    }
    EXPECT_EQ(objects.size(), 300u);
}

}  // namespace
}  // namespace fovea
