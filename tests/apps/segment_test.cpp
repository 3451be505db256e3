#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/apps/program.h"
#include "vision/image.h"
#include "vision/weights.h"

namespace fovea {
namespace {

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
                             "--cutout", "Exit code 3"})
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
    std::ofstream(path("prompts.txt")) << "box 33,23,107,97\ncorrect negative 5,5\npoint 500,5\n"
                                       << "save " << path("saved.png") << "\nquit\n";
    const std::string command = "cat " + path("prompts.txt") + " | " + FOVEA_PROGRAM + " segment " +
                                path("disc.png") + " --interactive > " + path("answers.txt");
    ASSERT_EQ(std::system(command.c_str()), 0);
    std::ifstream answers(path("answers.txt"));
    std::vector<nlohmann::json> lines;
    for (std::string line; std::getline(answers, line);)
        lines.push_back(nlohmann::json::parse(line));
    ASSERT_EQ(lines.size(), 5u);
    EXPECT_EQ(lines[0].at("width"), kWidth);
    EXPECT_EQ(lines[1].at("found"), true);
    EXPECT_EQ(lines[2].at("found"), true);
    EXPECT_THAT(lines[3].at("error").get<std::string>(), HasSubstr("lies outside"));
    EXPECT_GT(iou(load_image(path("saved.png"))), 0.9);
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
}

}  // namespace
}  // namespace fovea
