#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/apps/program.h"
#include "vision/image.h"

namespace fovea {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

/// Searches over the heads of one layer, a picture of one step each.
class HeadHuntCli : public testing::Program {
  protected:
    testing::Output hunt(const std::string& more) const {
        return run("headhunt --count 1 --seeds 1 --steps 1 --size 128 --blocks 7 " + more);
    }
};

TEST_F(HeadHuntCli, ChoosesGoesOnAndIsUsed) {
    const std::string command = "-o " + path("heads.json") + " --rounds 2 --top 1";
    const auto first = hunt(command + " --draw " + path("sheet.png"));
    ASSERT_EQ(first.code, 0) << first.err;
    const Json list = Json::parse(text("heads.json")),
               state = Json::parse(text("heads.json.state"));
    ASSERT_EQ(list.at("heads").size(), 2u);
    // The best of the four of a round, then of the three that are left.
    for (size_t round = 0; round < 2; ++round) {
        const Json& scores = state.at("rounds").at(round);
        EXPECT_EQ(scores.size(), 4 - round);
        const Json& chosen = list.at("heads").at(round);
        double best = 0;
        for (const auto& [head, score] : scores.items()) best = std::max(best, score.get<double>());
        EXPECT_EQ(chosen.at("score"), best);
        EXPECT_EQ(scores.at("7." + std::to_string(chosen.at("head").get<int>())), best);
    }
    EXPECT_EQ(load_image(path("sheet.png")).height, 4 * 128 + 3 * 2);  // without, two, both

    // Again: nothing is tried that the state knows.
    const auto bytes = text("heads.json");
    ASSERT_EQ(hunt(command).code, 0);
    EXPECT_THAT(text("err.txt"), ::testing::Not(HasSubstr("headhunt:")));
    EXPECT_EQ(text("heads.json"), bytes);
    const auto other = hunt(command + " --scale 4");
    EXPECT_EQ(other.code, 1);
    EXPECT_THAT(other.err, HasSubstr("other scale"));
    EXPECT_THAT(hunt(command + " --sampler euler").err, HasSubstr("other sampler"));
    EXPECT_THAT(hunt(command + " --guidance cfg:1,pag:1@blocks=2").err,
                HasSubstr("other guidance"));

    const auto again = run("headhunt --from " + path("heads.json") + " -o " + path("again.json"));
    ASSERT_EQ(again.code, 0) << again.err;
    EXPECT_EQ(text("again.json"), bytes);
    // The sheet knows as much, and pictures are not made of it.
    const auto by_sheet = run("headhunt --from " + path("sheet.png") + " -o " + path("sheet.json"));
    ASSERT_EQ(by_sheet.code, 0) << by_sheet.err;
    EXPECT_EQ(text("sheet.json"), bytes);
    EXPECT_THAT(run("generate --from " + path("sheet.png")).err,
                HasSubstr("was it made by another command?"));

    EXPECT_EQ(run("generate 'a cat' --size 128x128 --steps 1 --guidance softpag:heads=" +
                  path("heads.json") + " -o " + path("a.png"))
                  .code,
              0);
}

TEST_F(HeadHuntCli, ACommandScores) {
    const std::string list = "-o " + path("heads.json") + " --top 1 --command ";
    // The size of the file: what has more detail.
    const auto found = hunt(list + "'f() { wc -c < \"$1\"; }; f'");
    ASSERT_EQ(found.code, 0) << found.err;
    EXPECT_GT(Json::parse(text("heads.json")).at("score_without").get<double>(), 1000);
    const auto mute = hunt(list + "true --state " + path("b.state"));
    EXPECT_EQ(mute.code, 1);
    EXPECT_THAT(mute.err, HasSubstr("expected a number"));
}

TEST_F(HeadHuntCli, BadSearchesAreRefused) {
    const auto many = hunt("-o " + path("heads.json") + " --top 5");
    EXPECT_EQ(many.code, 1);
    EXPECT_THAT(many.err, HasSubstr("at most the 4 heads"));
    const auto block = run("headhunt --count 1 --size 128 --blocks 9 -o " + path("heads.json"));
    EXPECT_EQ(block.code, 1);
    EXPECT_THAT(block.err, HasSubstr("block 9 found, but the model's are 0 to 7"));
    std::ofstream(path("own.json")) << R"({"heads": []})";
    const auto own = run("headhunt --from " + path("own.json") + " -o " + path("heads.json"));
    EXPECT_THAT(own.err, HasSubstr("does not say how it was found"));
    EXPECT_EQ(run("headhunt").code, 2);
}

}  // namespace
}  // namespace fovea
