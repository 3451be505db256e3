#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numbers>

#include "tests/apps/program.h"
#include "vision/image.h"
#include "vision/mask.h"
#include "vision/video.h"
#include "vision/weights.h"

namespace fovea {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// `fovea segment` on a yellow disc before a dark blue, 160×120.
class SegmentCli : public testing::Program {
  protected:
    static constexpr int kWidth = 160, kHeight = 120;

    SegmentCli() {
        Image image{kWidth, kHeight, {}};
        for (int y = 0; y < kHeight; ++y)
            for (int x = 0; x < kWidth; ++x)
                for (const float value :
                     in_disc(x, y) ? std::array{0.95f, 0.8f, 0.15f} : std::array{0.1f, 0.15f, 0.3f})
                    image.rgb.push_back(value);
        save_png(path("disc.png"), image);
    }
    static bool in_disc(int x, int y) {
        return (x - 70) * (x - 70) + (y - 60) * (y - 60) < 35 * 35;
    }
    static double iou(const Image& mask) {
        int both = 0, either = 0;
        for (int y = 0; y < kHeight; ++y)
            for (int x = 0; x < kWidth; ++x) {
                const bool found = mask.rgb[3 * static_cast<size_t>(y * kWidth + x)] > 0.5f;
                both += found && in_disc(x, y);
                either += found || in_disc(x, y);
            }
        return static_cast<double>(both) / either;
    }
    void expect_error(const std::string& arguments, const std::string& part) {
        const auto result = run("segment " + arguments);
        EXPECT_EQ(result.code, 1) << arguments;
        EXPECT_THAT(result.err, HasSubstr(part)) << arguments;
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    }
};

TEST_F(SegmentCli, HelpTeaches) {
    const auto help = run("segment --help").out;
    for (const char* word : {"Examples", "--point", "--box", "--everything", "--interactive",
                             "--zero-shot", "--cutout", "Exit code 3"})
        EXPECT_THAT(help, HasSubstr(word));
}

TEST_F(SegmentCli, ErrorsAreOneLineAndWriteNothing) {
    const std::string picture = path("disc.png");
    expect_error("", "[segment] no picture; try");
    expect_error(path("none.png") + " --point 1,1", "there is no");
    expect_error(picture, "[segment] nothing asked");
    expect_error(picture + " --point 160,20", "point 160,20 lies outside the picture of 160×120");
    expect_error(picture + " --point 5", "--point 5 found, expected pixels");
    expect_error(picture + " --box 50,40,50,90", "is empty");
    expect_error(picture + " --box 50,40,90,121", "reaches out of the picture of 160×120");
    expect_error(picture + " --negative 5,5", "only points beside the thing");
    expect_error(picture + " --everything --point 5,5", "--everything asks for no thing");
    expect_error(picture + " --point 5,5 -o a.jpg", "expected a .png file");
    expect_error(picture + " --point 5,5 --frame 2", "is a picture");
    expect_error(picture + " --zero-shot", "--zero-shot finds what words say");
    expect_error(picture + " apple --zero-shot --point 5,5", "--zero-shot finds what words say");
    expect_error(picture + " apple --zero-shot --interactive", "--zero-shot finds what words say");
    expect_error(picture + " --everything --zero-shot", "--zero-shot finds what words say");
    expect_error(picture + " apple --refine", "--refine draws anew what --zero-shot found");
    expect_error(picture + " \"the zzyzx\" --zero-shot", "does not know the word \"zzyzx\"");
    expect_error(picture + " \"the zzyzx\"", "does not know the word \"zzyzx\"");
    EXPECT_EQ(files(), 1u);
}

TEST_F(SegmentCli, APointFindsWhatItIsOn) {
    const auto found =
        run("segment " + path("disc.png") + " --point 70,60 --overlay " + path("over.png") +
            " --cutout " + path("cut.png") + " -o " + path("mask.png") + " --json");
    ASSERT_EQ(found.code, 0) << found.err;
    const Image mask = load_image(path("mask.png"));
    EXPECT_GT(iou(mask), 0.9);
    const auto json = nlohmann::json::parse(found.out);
    const auto& segment = json.at("segments").at(0);
    EXPECT_NEAR(segment.at("bbox").at(0), 35, 4);
    EXPECT_NEAR(segment.at("bbox").at(2), 70, 8);
    EXPECT_EQ(segment.at("segmentation").at("size"), (nlohmann::json{kHeight, kWidth}));
    const auto opacity = load_opacity(path("cut.png"));
    EXPECT_GT(opacity.at(60 * kWidth + 70), 0.9f);
    EXPECT_LT(opacity.at(5 * kWidth + 5), 0.1f);
}

TEST_F(SegmentCli, PromptsFromStandardInput) {
    std::ofstream(path("prompts.txt"))
        << "box 33,23,107,97\npoint 500,5\ncorrect negative 5,5\ncorrect box 32,22,108,98\n"
        << "point 70,60 correct\nbox 1,1,9,9 box 2,2,9,9\nwords \xff\nsave " << path("saved.png")
        << "\nquit \r\npoint 70,60\n";
    const std::string command = "cat " + path("prompts.txt") + " | " + FOVEA_PROGRAM + " segment " +
                                path("disc.png") + " --interactive > " + path("answers.txt");
    ASSERT_EQ(std::system(command.c_str()), 0);
    const auto answers = lines(text("answers.txt"));
    ASSERT_EQ(answers.size(), 9u);
    EXPECT_EQ(answers[0].at("width"), kWidth);
    for (const size_t found : {1, 3, 4}) EXPECT_EQ(answers[found].at("found"), true) << found;
    for (const auto& [index, part] : {std::pair{size_t{2}, "lies outside"},
                                      {5, "expected correct before"},
                                      {6, "expected one box"},
                                      {7, "does not know the word"}})
        EXPECT_THAT(answers[index].at("error").get<std::string>(), HasSubstr(part));
    EXPECT_GT(iou(load_image(path("saved.png"))), 0.9);
}

TEST_F(SegmentCli, ASignalEndsThoseWhoWaitForPrompts) {
    const std::string command = fmt::format(
        "mkfifo {0}; exec 3<>{0}; {1} segment {2} --interactive <&3 >{3} & made=$!; "
        "for i in $(seq 600); do test -s {3} && break; sleep 0.1; done; kill -TERM $made; "
        "(sleep 5; kill -KILL $made) 2>/dev/null & wait $made",
        path("prompts"), bare_program(), path("disc.png"), path("answers.txt"));
    EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 130);
}

TEST_F(SegmentCli, OutputsAreCheckedBeforeTheWork) {
    const std::string picture = path("disc.png") + " --point 70,60";
    const std::string same =
        path("a.png") + " --cutout " + path("../") + folder_.filename().string() + "/a.png";
    expect_error(picture + " -o " + same, "-o and --cutout both name");
    expect_error(picture + " --json-file " + folder_.string(), "which is a folder");
    expect_error(picture + " --interactive --json", "--interactive");
    for (const auto& [options, part] : {std::pair{" --grid 4", "--grid requires --everything"},
                                        {" --frame -1", "not in range 0 to"}}) {
        const auto refused = run("segment " + picture + options);
        EXPECT_EQ(refused.code, 2);
        EXPECT_THAT(refused.err, HasSubstr(part));
    }
    const Image odd{3, 3, std::vector<float>(27)};
    save_video(path("odd.gif"), {.frames = {odd, odd}});
    const std::string clip = path("odd.gif") + " --point 1,1";
    expect_error(clip + " -o " + path("a.mp4"), "MP4 needs even sides, these are 3x3");
    expect_error(clip + " --cutout " + path("a.png"), "--cutout is for pictures");
    expect_error(clip + " -o " + path("a/") + " --overlay " + path("a"), "both name");
    EXPECT_EQ(files(), 2u);

    const std::string features = "features " + path("disc.png") + " -o " + path("a.png");
    EXPECT_THAT(run(features + " --picture " + path("a.png")).err, HasSubstr("both name"));
    EXPECT_THAT(run("features " + path("disc.png") + " -o " + folder_.string()).err,
                HasSubstr("which is a folder"));
    EXPECT_EQ(files(), 2u);
}

TEST_F(SegmentCli, AnyNameIsOneOfAPicture) {
    fs::rename(path("disc.png"), path("50%off\xff"));
    const auto found =
        run("segment '" + path("50%off\xff") + "' --point 70,60 --json -o " + path("mask.png"));
    ASSERT_EQ(found.code, 0) << found.err;
    const auto name = nlohmann::json::parse(found.out).at("picture").get<std::string>();
    EXPECT_TRUE(name.ends_with("50%off\xef\xbf\xbd")) << name;
    const auto refused = run("features '" + path("50%off\xff") + "' -o " + path("f.safetensors"));
    EXPECT_EQ(refused.code, 1);
    EXPECT_THAT(refused.err, HasSubstr("expected UTF-8"));
}

TEST_F(SegmentCli, AStillWebPIsAPicture) {
    save_video(path("still.webp"), {.frames = {load_image(path("disc.png"))}});
    const auto found = run("segment " + path("still.webp") + " --point 70,60");
    ASSERT_EQ(found.code, 0) << found.err;
    EXPECT_GT(iou(load_image(path("still-mask.png"))), 0.9);
}

TEST_F(SegmentCli, ByDefaultNoMP4IsMadeOfOddSides) {
    const Image disc = load_image(path("disc.png"));
    Image odd{kWidth - 1, kHeight, {}};
    for (size_t i = 0; i < disc.rgb.size(); ++i)
        if (i % (3 * kWidth) >= 3) odd.rgb.push_back(disc.rgb[i]);
    save_video(path("odd.gif"), {.frames = {odd, odd}});
    fs::rename(path("odd.gif"), path("odd.clip"));
    const auto found = run("segment " + path("odd.clip") + " --point 69,60");
    ASSERT_EQ(found.code, 0) << found.err;
    EXPECT_EQ(load_video(path("odd-mask.webp")).frames.at(0).width, kWidth - 1);
}

TEST_F(SegmentCli, MasksOfTheFolderOneIsInStandBesideIt) {
    save_video(path("clip/"), {.frames = {load_image(path("disc.png"))}});
    const auto found =
        run("segment . --point 70,60", "cd " + path("clip") + " && " + FOVEA_PROGRAM);
    ASSERT_EQ(found.code, 0) << found.err;
    EXPECT_GT(iou(load_video(path("clip-mask/")).frames.at(0)), 0.9);
}

TEST_F(SegmentCli, FeaturesStayWhereTheSheetIsTooLarge) {
    const Image wide{8200, 8, std::vector<float>(3 * 8200 * 8)};
    for (const char* name : {"a.png", "b.png"}) save_png(path(name), wide);
    const auto result = run("features " + path("a.png") + " " + path("b.png") + " -o " +
                            path("f.safetensors") + " --picture " + path("sheet.png"));
    EXPECT_EQ(result.code, 1);
    EXPECT_THAT(result.err, HasSubstr("too large"));
    EXPECT_TRUE(fs::exists(path("f.safetensors")));
}

TEST_F(SegmentCli, FeaturesTellTheDiscFromTheRest) {
    const auto result = run("features " + path("disc.png") + " -o " + path("f.safetensors") +
                            " --picture " + path("parts.png") + " --json");
    ASSERT_EQ(result.code, 0) << result.err;
    const auto json = nlohmann::json::parse(result.out).at(0);
    const auto values = Weights::open(path("f.safetensors"))
                            .floats("disc.png", {json["rows"], json["columns"], json["width"]});
    EXPECT_GT(values.size(), 0u);
    const Image parts = load_image(path("parts.png"));
    ASSERT_EQ(parts.width, kWidth);
    const auto distance = [&](int x, int y) {  // from the colour of the disc's middle
        double sum = 0;
        for (size_t c = 0; c < 3; ++c)
            sum += std::abs(parts.rgb[3 * static_cast<size_t>(y * kWidth + x) + c] -
                            parts.rgb[3 * static_cast<size_t>(60 * kWidth + 70) + c]);
        return sum;
    };
    EXPECT_LT(distance(75, 65), distance(150, 20) / 2);
    EXPECT_EQ(run("features " + path("disc.png") + " " + path("disc.png") + " -o " +
                  path("g.safetensors"))
                  .code,
              1);
    for (const char* place : {"none/parts.png", "parts.gif"}) {
        const auto refused = run("features " + path("disc.png") + " --picture " + path(place));
        EXPECT_EQ(refused.code, 1) << place;
        EXPECT_THAT(refused.err, HasSubstr(place));
    }
}

/// `fovea segment` on things with names: a red heart and a yellow star on green, as flat as emoji.
class SegmentThings : public testing::Program {
  protected:
    static constexpr int kSide = 144;
    using Shape = bool (*)(double x, double y);  ///< of a thing from −1 to 1, y downwards

    static bool heart(double x, double y) {
        const double u = 1.15 * x, v = 0.1 - 1.15 * y, ring = u * u + v * v - 1;
        return ring * ring * ring < u * u * v * v * v;
    }
    static bool star(double x, double y) {
        constexpr double kPoint = 2 * std::numbers::pi / 5, kNotch = 0.5;
        const double turn = std::remainder(std::atan2(x, -y), kPoint);
        const double along = std::hypot(x, y) * std::cos(turn),
                     across = std::hypot(x, y) * std::abs(std::sin(turn));
        const double notch_x = kNotch * std::cos(kPoint / 2),
                     notch_y = kNotch * std::sin(kPoint / 2);
        return (1 - notch_x) * across < notch_y * (1 - along);
    }
    /// (height, width): where a thing is whose middle and half side are given in pixels.
    static std::vector<bool> place(Shape shape, int width, int height, double x, double y,
                                   double half) {
        std::vector<bool> inside;
        for (int row = 0; row < height; ++row)
            for (int column = 0; column < width; ++column)
                inside.push_back(shape((column + 0.5 - x) / half, (row + 0.5 - y) / half));
        return inside;
    }
    static Image draw(int width, int height, const std::vector<bool>& red,
                      const std::vector<bool>& yellow = {}) {
        Image image{width, height, {}};
        for (size_t i = 0; i < red.size(); ++i)
            for (const float value : red[i] ? std::array{0.87f, 0.13f, 0.17f}
                                     : !yellow.empty() && yellow[i]
                                         ? std::array{0.98f, 0.75f, 0.13f}
                                         : std::array{0.3f, 0.7f, 0.25f})
                image.rgb.push_back(value);
        return image;
    }
    template <typename Value>
    static double iou(const std::vector<bool>& truth, const Value& found) {
        int both = 0, either = 0;
        for (size_t i = 0; i < truth.size(); ++i) {
            both += truth[i] && found(i);
            either += truth[i] || found(i);
        }
        return static_cast<double>(both) / either;
    }
    static double iou(const std::vector<bool>& truth, const Image& mask) {
        return iou(truth, [&](size_t i) { return mask.rgb[3 * i] > 0.5f; });
    }
    void draw_scene() { save_png(path("scene.png"), draw(kSide, kSide, heart_, star_)); }

    const std::vector<bool> heart_ = place(heart, kSide, kSide, 42, 42, 30);
    const std::vector<bool> star_ = place(star, kSide, kSide, 104, 104, 32);
};

TEST_F(SegmentThings, WordsFindWhatTheyNameAndNothingElse) {
    draw_scene();
    const std::string command = "segment " + path("scene.png") + " -o " + path("mask.png");
    for (const auto& [words, truth] : {std::pair{" \"the heart\"", heart_}, {" star", star_}}) {
        const auto result = run(command + words);
        ASSERT_EQ(result.code, 0) << result.err;
        EXPECT_GT(iou(truth, load_image(path("mask.png"))), 0.6) << words;
    }
}

TEST_F(SegmentThings, NothingFoundIsAnExitCodeOfItsOwn) {
    draw_scene();
    const auto result =
        run("segment " + path("scene.png") + " \"the rocket\" --json --overlay " +
            path("over.png") + " -o " + path("mask.png") + " --json-file " + path("found.json"));
    EXPECT_EQ(result.code, 3);
    EXPECT_THAT(result.err, HasSubstr("nothing found"));
    const auto json = nlohmann::json::parse(result.out);
    EXPECT_EQ(json.at("segments"), nlohmann::json::array());
    EXPECT_EQ(json.at("width"), kSide);
    EXPECT_EQ(json.at("words"), "the rocket");
    EXPECT_EQ(files(), 1u);

    save_video(path("clip/"), {.frames = {load_image(path("scene.png"))}});
    const auto clip = run("segment " + path("clip") + " \"the rocket\" --json");
    EXPECT_EQ(clip.code, 3);
    EXPECT_EQ(nlohmann::json::parse(clip.out).at("frames"), nlohmann::json::parse("[null]"));
}

TEST_F(SegmentThings, EverythingIsFoundOnce) {
    draw_scene();
    const auto result = run("segment " + path("scene.png") + " --everything --grid 6 --json -o " +
                            path("all.png") + " --cutout " + path("thing.png"));
    ASSERT_EQ(result.code, 0) << result.err;
    const auto json = nlohmann::json::parse(result.out);
    std::vector<std::vector<bool>> things;
    for (size_t i = 1; i <= json.at("segments").size(); ++i) {
        const auto opacity = load_opacity(path("thing-" + std::to_string(i) + ".png"));
        ASSERT_EQ(opacity.size(), size_t{kSide * kSide});
        auto& thing = things.emplace_back();
        for (const float value : opacity) thing.push_back(value > 0.5f);
    }
    EXPECT_EQ(json.at("files").size(), 1 + things.size());
    for (const auto& truth : {heart_, star_})
        EXPECT_EQ(std::count_if(things.begin(), things.end(),
                                [&](const auto& thing) {
                                    return iou(truth, [&](size_t i) { return thing[i]; }) > 0.5;
                                }),
                  1);
    for (size_t a = 0; a < things.size(); ++a)
        for (size_t b = 0; b < a; ++b)
            EXPECT_LT(iou(things[a], [&](size_t i) { return things[b][i]; }), 0.8);
}

TEST_F(SegmentThings, TheMaskFollowsAThingThroughAClip) {
    constexpr int kWidth = 144, kHeight = 96;
    Clip clip;
    std::vector<std::vector<bool>> truth;
    for (int i = 0; i < 3; ++i) {
        truth.push_back(place(heart, kWidth, kHeight, 40 + 32 * i, 46, 26));
        clip.frames.push_back(draw(kWidth, kHeight, truth.back()));
    }
    save_video(path("clip/"), clip);
    const auto result =
        run("segment " + path("clip") + " --point 72,40 --frame 1 --json -o " + path("masks/"));
    ASSERT_EQ(result.code, 0) << result.err;
    const auto json = nlohmann::json::parse(result.out);
    ASSERT_EQ(json.at("frames").size(), truth.size());
    const Clip masks = load_video(path("masks"));
    ASSERT_EQ(masks.frames.size(), truth.size());
    for (size_t i = 0; i < truth.size(); ++i) {
        EXPECT_GT(iou(truth[i], masks.frames[i]), 0.5) << i;
        EXPECT_NEAR(json["frames"][i].at("bbox").at(0).get<int>(), 14 + 32 * static_cast<int>(i),
                    6);
    }
}

TEST_F(SegmentThings, ThePictureModelFindsWordsAlone) {
    draw_scene();
    const auto alone = run("segment " + path("scene.png") + " \"the star\" --zero-shot --json -o " +
                           path("mask.png") + " --cutout " + path("cut.png"));
    ASSERT_EQ(alone.code, 0) << alone.err;
    EXPECT_GT(iou(star_, load_image(path("mask.png"))), 0.5);
    const auto json = nlohmann::json::parse(alone.out);
    EXPECT_EQ(json.at("zero_shot"), "alone");
    EXPECT_GT(json.at("segments").at(0).at("score"), 0);
    EXPECT_GT(load_opacity(path("cut.png")).at(104 * kSide + 104), 0.9f);
}

TEST_F(SegmentThings, WhatThePictureModelFindsIsRefined) {
    draw_scene();
    const auto refined = run("segment " + path("scene.png") +
                             " \"the star\" --zero-shot --refine -o " + path("mask.png"));
    ASSERT_EQ(refined.code, 0) << refined.err;
    EXPECT_GT(iou(star_, load_image(path("mask.png"))), 0.6);
}

TEST_F(SegmentThings, AnEarlierMaskIsCorrected) {
    draw_scene();
    auto both = heart_;
    for (size_t i = 0; i < both.size(); ++i) both[i] = both[i] || star_[i];
    Mask earlier{.width = kSide, .height = kSide, .hole = {both.begin(), both.end()}};
    save_png(path("both.png"), picture_of(earlier));
    const std::string command = "segment " + path("scene.png") + " -o " + path("mask.png") +
                                " --earlier " + path("both.png");
    const auto result = run(command + " --point 42,42 --negative 104,100");
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_GT(iou(heart_, load_image(path("mask.png"))), 0.6);

    for (size_t i = 0; i < earlier.hole.size(); ++i)  // the heart's right half
        earlier.hole[i] = heart_[i] && i % kSide > 46;
    save_png(path("both.png"), picture_of(earlier));
    const auto whole = run(command + " --point 32,40");
    ASSERT_EQ(whole.code, 0) << whole.err;
    EXPECT_GT(iou(heart_, load_image(path("mask.png"))), 0.6);

    earlier = {.width = 12, .height = 8, .hole = std::vector<uint8_t>(96, 1)};
    save_png(path("both.png"), picture_of(earlier));
    EXPECT_THAT(run(command).err, HasSubstr("of 12×8 found, expected 144×144"));
    earlier.hole.assign(96, 0);
    save_png(path("both.png"), picture_of(earlier));
    const auto nothing = run(command);
    EXPECT_EQ(nothing.code, 1);
    EXPECT_THAT(nothing.err, HasSubstr("shows nothing"));
}

}  // namespace
}  // namespace fovea
