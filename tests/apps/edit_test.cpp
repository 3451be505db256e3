#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/apps/program.h"
#include "vision/video.h"

namespace fovea {
namespace {

using ::testing::HasSubstr;

/// `fovea lens` and `fovea edit` at the smallest size and few steps.
class EditCli : public testing::Program {
  protected:
    void expect_error(const std::string& arguments, const char* part) {
        const auto result = run(arguments);
        EXPECT_EQ(result.code, 1) << arguments;
        EXPECT_THAT(result.err, HasSubstr(part)) << arguments;
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    }
    /// A red square on blue, without settings.
    std::string drawing() {
        Image image{144, 128, {}};
        for (int y = 0; y < 128; ++y)
            for (int x = 0; x < 144; ++x)
                for (const float value : x > 40 && x < 100 && y > 30 && y < 90
                                             ? std::array{0.8f, 0.1f, 0.1f}
                                             : std::array{0.2f, 0.4f, 0.9f})
                    image.rgb.push_back(value);
        save_png(path("drawing.png"), image);
        return path("drawing.png");
    }
};

TEST_F(EditCli, HelpTeaches) {
    for (const char* word : {"Examples", "--word", "--by", "--from", "--times"})
        EXPECT_THAT(run("lens --help").out, HasSubstr(word));
    for (const char* word : {"Examples", "--from", "--to", "--swap", "--weight", "--keep-self",
                             "--show-mask", "Too little changes"})
        EXPECT_THAT(run("edit --help").out, HasSubstr(word));
}

TEST_F(EditCli, ErrorsAreOneLine) {
    const std::string picture = drawing(), edit = "edit " + picture + " ";
    expect_error("lens", "[lens] no prompt");
    expect_error("lens --from " + picture, "carries none");
    expect_error("lens 'a cat' -o cat.jpg", "expected a .png file");
    expect_error("lens 'a cat' -o ''", "-o is empty, expected a .png file");
    expect_error("lens 'a cat' --word dog", "\"dog\" is not in the prompt, whose words are: a cat");
    expect_error("lens 'a cat' --from /dev/null", "/dev/null");
    expect_error("lens 'a cat' --from " + picture + " --steps 9",
                 "--steps found beside a picture of --from");
    expect_error("lens 'a cat' --times 0.3", "--times found without --from");
    expect_error("edit", "[edit] no picture");
    expect_error(edit + "--to 'a pear'", "does not say what it shows");
    expect_error(edit + "--from 'an apple'", "nothing to change");
    expect_error(edit + "--from 'an apple' --swap pear=banana", "\"pear\" is not in");
    expect_error(edit + "--from 'an apple' --swap apple", "expected WORD=VALUE");
    expect_error(edit + "--from 'an apple' --to 'a pear' --add x", "beside --swap or --add");
    expect_error(edit + "--from 'an apple' --to 'a pear' --weight pear=much", "expected a number");
    expect_error(edit + "--from 'an apple' --to 'a pear' -o /no/such/folder/x.png", "-o");
    expect_error("edit /dev/null --from 'an apple' --to 'a pear'", "/dev/null");
    expect_error("edit --settings " + picture, "carries no fovea settings");
    EXPECT_EQ(files(), 1u);
}

TEST_F(EditCli, AnEditIsMadeAndMadeAgain) {
    const std::string small = " --steps 1 --cfg 1 --no-tune ";
    const auto first = run("edit " + drawing() + " --from 'a red apple on a blue background'" +
                           " --swap apple=pear --weight pear=1.5 -o " + path("a.png") +
                           " --show-mask " + path("mask.png") + small + "--json");
    ASSERT_EQ(first.code, 0) << first.err;
    const auto json = nlohmann::json::parse(first.out);
    EXPECT_EQ(json.at("to"), "a red pear on a blue background");
    EXPECT_EQ(json.at("size"), "144x128");
    EXPECT_GT(json.at("may_change"), 0.0);
    EXPECT_THAT(first.err, HasSubstr("edit:"));  // progress
    EXPECT_EQ(load_image(path("a.png")).width, 144);
    const auto again =
        run("edit --settings " + path("a.png") + " -o " + path("b.png") + " --no-tune");
    ASSERT_EQ(again.code, 0) << again.err;
    EXPECT_EQ(load_image(path("a.png")).rgb, load_image(path("b.png")).rgb);
}

TEST_F(EditCli, AClipIsEditedAndSaysHow) {
    Clip clip{.frames = {}, .fps = 10, .text = R"({"prompt": "a red apple moving right"})"};
    for (int i = 0; i < 4; ++i) {
        Image frame = load_image(drawing());
        std::rotate(frame.rgb.begin(), frame.rgb.end() - 36 * i, frame.rgb.end());
        clip.frames.push_back(frame);
    }
    save_video(path("given.gif"), clip);
    const std::string edit = "edit " + path("given.gif") + " ";
    expect_error(edit + "--swap apple=pear -o " + path("a.png"), "expected a name with .mp4");
    expect_error(edit + "--swap apple=pear --start 3 --frames 2", "has 4 frames");
    expect_error(edit + "--swap apple=pear --shared-frames second", "expected none, or some of");
    expect_error("edit " + drawing() + " --from x --to y --frames 8", "are for clips");
    const auto first =
        run(edit +
            "--swap apple=pear --start 1 --frames 2 --shared-frames first --steps 1 --cfg 1 "
            "--size 128x128 --no-tune --json --show-mask " +
            path("mask.png") + " -o " + path("a/"));
    ASSERT_EQ(first.code, 0) << first.err;
    EXPECT_THAT(first.err, HasSubstr("2 frames, where the model has learnt clips of 8 to 24"));
    EXPECT_THAT(first.err, HasSubstr("edit:"));  // progress
    const auto json = nlohmann::json::parse(first.out);
    EXPECT_EQ(json.at("to"), "a red pear moving right");
    EXPECT_EQ(json.at("mask_map").size(), 2u * 64);
    EXPECT_EQ(json.at("shared_frames"), "first");
    const Clip made = load_video(path("a/"));
    ASSERT_EQ(made.frames.size(), 2u);
    EXPECT_NEAR(made.fps, 10, 0.1);
    EXPECT_NE(made.frames[0].rgb, made.frames[1].rgb);
    EXPECT_GT(load_image(path("mask.png")).width, 2 * 128);
    // Everything comes from the edited clip again.
    expect_error("edit --settings " + path("a/") + " --start 3 -o " + path("b/"),
                 "--start 3 --frames 2 found");
}

TEST_F(EditCli, LensReadsThePromptOfAPicture) {
    save_png(path("a.png"), load_image(drawing()), {{"fovea", R"({"prompt": "a red apple"})"}});
    const auto found = run("lens --from " + path("a.png") +
                           " --word 'red apple' --by layer --json -o " + path("lens.png"));
    ASSERT_EQ(found.code, 0) << found.err;
    const auto json = nlohmann::json::parse(found.out);
    EXPECT_EQ(json.at("prompt"), "a red apple");
    EXPECT_EQ(json.at("maps").size(), 8u);
    EXPECT_EQ(json.at("maps")[3].at("layer"), 3);
    EXPECT_EQ(json.at("maps")[0].at("heat").size(), 72u);
    EXPECT_GT(load_image(path("lens.png")).height, 8 * 100);
    // The sheet says how it was made.
    ASSERT_EQ(run("lens --from " + path("lens.png") + " -o " + path("again.png")).code, 0);
    EXPECT_EQ(text("again.png"), text("lens.png"));
}

}  // namespace
}  // namespace fovea
