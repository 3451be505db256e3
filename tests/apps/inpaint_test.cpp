#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/apps/program.h"
#include "vision/image.h"

namespace fovea {
namespace {

using ::testing::HasSubstr;

/// `fovea inpaint` at the smallest size and few steps.
class InpaintCli : public testing::Program {
  protected:
    void expect_error(const std::string& arguments, const std::string& part) {
        const auto result = run(arguments);
        EXPECT_EQ(result.code, 1) << arguments;
        EXPECT_THAT(result.err, HasSubstr(part)) << arguments;
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    }
    /// Blue; white in a box where there is one.
    std::string draw(const std::string& name, int width, int height, bool box = false) {
        Image image{width, height, {}};
        for (int y = 0; y < height; ++y)
            for (int x = 0; x < width; ++x) {
                const bool inside = box && x >= 40 && x < 90 && y >= 30 && y < 100;
                for (const int value : {50, 90, 200})
                    image.rgb.push_back(box ? (inside ? 1.0f : 0.0f)
                                            : static_cast<float>(value) / 255);
            }
        save_png(path(name), image);
        return path(name);
    }
};

TEST_F(InpaintCli, HelpTeaches) {
    for (const char* word : {"Examples", "--mask", "--box", "--painta", "--window", "--from",
                             "--seed", "--count", "what is transparent"})
        EXPECT_THAT(run("inpaint --help").out, HasSubstr(word));
}

TEST_F(InpaintCli, ErrorsAreOneLine) {
    const std::string picture = draw("picture.png", 128, 128),
                      start = "inpaint " + picture + " 'a cat' ";
    expect_error("inpaint", "[inpaint] no picture; try");
    expect_error("inpaint " + picture, "[inpaint] no prompt; try");
    expect_error(start, "has no transparent pixels: say what to fill with --mask");
    expect_error(start + "--mask " + draw("small.png", 64, 128, true),
                 "small.png has 64×128 pixels, " + picture + " has 128×128");
    expect_error(start + "--mask " + picture, "has no white pixel: nothing to fill");
    expect_error(start + "--box 10,10,20", "--box 10,10,20 found, expected LEFT,TOP,RIGHT,BOTTOM");
    expect_error(start + "--box 10,10,5,20", "is empty, expected LEFT < RIGHT and TOP < BOTTOM");
    expect_error(start + "--box -2147483648,0,2147483647,0", "is empty");
    expect_error("inpaint --box 200,10,220,20 " + picture + " 'a cat'",
                 "reaches beyond the picture of 128×128");
    expect_error(start + "--box 100,100,140,120", "reaches beyond the picture of 128×128");
    expect_error(start + "--box 1,1,9,9 --window 100", "window 100 found");
    expect_error(start + "--box 1,1,9,9 -o a.jpg", "expected a .png file or a folder");
    expect_error(start + "--box 1,1,9,9 --save-mask a.jpg", "--save-mask a.jpg found, expected");
    expect_error(start + "--box 1,1,9,9 --mask /dev/null", "/dev/null");
    expect_error("inpaint /dev/null 'a cat'", "/dev/null");
    expect_error("inpaint --from " + picture, "carries no fovea settings");
    EXPECT_EQ(files(), 2u);
}

TEST_F(InpaintCli, AHoleIsFilledAndFilledAgain) {
    const std::string picture = draw("picture.png", 128, 128);
    const auto first = run("inpaint " + picture + " 'a red apple on a blue background' --mask " +
                           draw("mask.png", 128, 128, true) +
                           " --box 0,0,10,10 --steps 2 --cfg 1 --seed 5 --painta on --no-tune -o " +
                           path("a.png") + " --save-mask " + path("hole.png") + " --json");
    ASSERT_EQ(first.code, 0) << first.err;
    EXPECT_THAT(first.err, HasSubstr("inpaint:"));  // progress
    const auto json = nlohmann::json::parse(first.out);
    EXPECT_EQ(json.at("tiles"), 1);
    EXPECT_NEAR(json.at("filled"), (50 * 70 + 100) / 128.0 / 128, 1e-9);
    EXPECT_GE(json.at("pictures")[0].at("seam").at("across"), 0.0);
    const Image before = load_image(picture), hole = load_image(path("hole.png")),
                after = load_image(path("a.png"));
    for (size_t v = 0; v < before.rgb.size(); ++v)
        if (hole.rgb[v] == 0) {
            ASSERT_EQ(after.rgb[v], before.rgb[v]) << v;
        }
    EXPECT_NE(after.rgb, before.rgb);
    const auto again =
        run("inpaint --from " + path("a.png") + " -o " + path("b.png") + " --no-tune");
    ASSERT_EQ(again.code, 0) << again.err;
    EXPECT_THAT(again.err, HasSubstr("of 255 across the edge"));
    EXPECT_EQ(load_image(path("b.png")).rgb, after.rgb);
    // Another hole instead of the recorded one, and two seeds of it.
    const auto other = run("inpaint --from " + path("a.png") +
                           " --box 60,60,128,128 --count 2 -o " + path("c.png") + " --no-tune");
    ASSERT_EQ(other.code, 0) << other.err;
    const Image one = load_image(path("c-1.png")), two = load_image(path("c-2.png"));
    EXPECT_NE(one.rgb, two.rgb);
    const size_t corner = 3 * (5 * 128 + 5);
    EXPECT_EQ(one.rgb[corner], before.rgb[corner]);
}

TEST_F(InpaintCli, BenchComparesMethods) {
    draw("picture.png", 128, 128);
    draw("mask.png", 128, 128, true);
    const nlohmann::json object{{"name", "pig"}, {"mask", "mask.png"}};
    const nlohmann::json one{
        {"picture", "picture.png"},
        {"prompt", "a pig on a blue background"},
        {"objects", {object}},
        {"edit",
         {{"kind", "object"}, {"prompt", "a pear on a blue background"}, {"region", "mask.png"}}}};
    nlohmann::json other = one;
    other["edit"]["kind"] = "style";
    std::ofstream(path("cases.json")) << nlohmann::json{{"cases", {other, one}}};
    const auto found = run("bench inpaint --boxes --steps 2 --methods inpaint,smooth --cases " +
                           folder_.string() + " --json " + path("b.json") + " --picture " +
                           path("b.png") + " --markdown " + path("b.md"));
    ASSERT_EQ(found.code, 0) << found.err;
    const auto json = nlohmann::json::parse(text("b.json"));
    EXPECT_EQ(json.at("cases"), 1);
    EXPECT_EQ(json.at("rows").at("inpaint").at("known_identical"), 1);
    EXPECT_EQ(json.at("rows").at("smooth").at("object_recognised"), 0);  // nothing is there
    EXPECT_EQ(json.at("each")[0].at("across"), 0);
    EXPECT_THAT(text("b.md"), HasSubstr("| smooth | 0.0 ± 0.0 | 0.0 ± 0.0 | 1/1 | 0.00 | 0.00 |"));
    EXPECT_EQ(load_image(path("b.png")).width, 3 * 128 + 4);
    expect_error("bench inpaint", "[bench] no cases");
    expect_error("bench inpaint --methods none --cases " + folder_.string(),
                 "--methods none found, expected inpaint");
}

}  // namespace
}  // namespace fovea
