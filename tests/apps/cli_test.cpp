#include <gmock/gmock.h>

#include <algorithm>
#include <csignal>
#include <thread>

#include "tests/apps/program.h"
#include "vision/image.h"

namespace fovea {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Cli : public testing::Program {
  protected:
    std::string small(const std::string& name) const {
        return "generate 'a red apple on a blue background' --size 128x128 --steps 2 -o " +
               path(name);
    }
};

TEST_F(Cli, HelpTeachesAndSucceeds) {
    const auto help = run("generate --help");
    EXPECT_EQ(help.code, 0);
    EXPECT_THAT(help.out, HasSubstr("Examples"));
    EXPECT_THAT(run("--version").out, HasSubstr("fovea "));
}

TEST_F(Cli, BadUsageIsCode2) {
    EXPECT_EQ(run("").code, 2);
    EXPECT_EQ(run("generate 'a cat' --steps 0").code, 2);
    EXPECT_EQ(run("generate 'a cat' --guidance ''").code, 2);
    EXPECT_EQ(run("paint 'a cat'").code, 2);
    for (const std::string arguments :
         {"calibrate 'a cat' -o x --density nan", "video 'a cat' --cfg nan",
          "batch jobs.jsonl --claim-timeout nan", "generate 'a cat' --cfg=-nan"}) {
        const auto result = run(arguments);
        EXPECT_EQ(result.code, 2) << arguments;
        EXPECT_THAT(result.err, HasSubstr("found, expected a number")) << arguments;
    }
}

TEST_F(Cli, ErrorsAreOneLineAndLeaveNoFile) {
    for (const char* arguments :
         {"generate", "generate 'a cat' --size 100x100", "generate 'a cat' --size big",
          "generate 'a cat' --guidance pagg:2", "generate 'a cat' --guidance pag:2@blocks=99",
          "generate 'a cat' --guidance cfg:3 --cfg 4", "generate 'a cat' --sampler ddim",
          "generate 'a cat' --pattern spiral", "generate 'a cat' --model /no/such/model",
          "generate 'a cat' --box cat", "generate --box cat=0,0,999,9 'a cat'",
          "generate 'a cat' --box cat=9,0,9,9", "generate 'a cat' --box dog=0,0,99,99",
          "generate 'a cat' --box dog=0,0,99,99 --dry-run", "generate 'a cat' -o picture.bmp",
          "generate 'a cat' --device no-such-device",
          "generate 'a cat' --size 128x128 --steps 1 --cfg 1 -o /proc/cat.png",
          "score /no/such/file.png"}) {
        const auto result = run(arguments);
        EXPECT_EQ(result.code, 1) << arguments;
        EXPECT_THAT(result.err, HasSubstr("fovea: error: [")) << arguments;
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    }
    EXPECT_EQ(files(), 0u);
}

TEST_F(Cli, InfoListsTheDeviceUnderTest) {
    const auto info = run("info");
    EXPECT_EQ(info.code, 0);
    EXPECT_THAT(info.out, HasSubstr("scalar"));
    EXPECT_THAT(run("info --json").out, HasSubstr("\"attention_paths\""));
}

TEST_F(Cli, APictureIsMadeAgainFromItself) {
    ASSERT_EQ(run(small("a.png") + " --seed 5").code, 0);
    const auto chunks = read_png_text(path("a.png"));
    ASSERT_TRUE(chunks.contains("fovea"));
    for (const char* key :
         {"prompt", "seed", "steps", "cfg", "sampler", "model", "device", "version"})
        EXPECT_THAT(chunks.at("fovea"), HasSubstr(std::string("\"") + key + "\""));
    ASSERT_EQ(run("generate --from " + path("a.png") + " -o " + path("b.png")).code, 0);
    EXPECT_EQ(text("a.png"), text("b.png"));  // same bits, same text
}

TEST_F(Cli, GuidanceTravelsInThePicture) {
    ASSERT_EQ(run(small("a.png") + " --guidance cfg:3").code, 0);
    ASSERT_EQ(run(small("b.png")).code, 0);
    EXPECT_EQ(load_image(path("a.png")).rgb, load_image(path("b.png")).rgb);
    const std::string several = " --cfg 3 --guidance pag:2@blocks=5-6,steps=0.0-0.5,seg:1";
    ASSERT_EQ(run(small("c.png") + several).code, 0);
    EXPECT_NE(load_image(path("c.png")).rgb, load_image(path("b.png")).rgb);
    EXPECT_THAT(read_png_text(path("c.png")).at("fovea"),
                HasSubstr("\"guidance\":\"cfg:3,pag:2@blocks=5-6,steps=0.0-0.5,seg:1\""));
    ASSERT_EQ(run("generate --from " + path("c.png") + " -o " + path("d.png")).code, 0);
    EXPECT_EQ(text("c.png"), text("d.png"));
    EXPECT_THAT(run(small("e.png") + several + " --dry-run").out,
                HasSubstr("2.81 passes of the model a step"));
}

TEST_F(Cli, BoxesTravelInThePicture) {
    ASSERT_EQ(run(small("a.png") + " --box apple=0,0,64,64 --box red=64,64,128,128").code, 0);
    EXPECT_THAT(read_png_text(path("a.png")).at("fovea"),
                HasSubstr("\"boxes\":[\"apple=0,0,64,64\",\"red=64,64,128,128\"]"));
    ASSERT_EQ(run("generate --from " + path("a.png") + " -o " + path("b.png")).code, 0);
    EXPECT_EQ(text("a.png"), text("b.png"));
}

TEST_F(Cli, SubjectsTravelInThePicture) {
    const Image leaf{32, 32, std::vector<float>(32 * 32 * 3, 0.3f)};
    std::vector<float> opacity(32 * 32, 0);
    for (size_t i = 0; i < opacity.size(); ++i) opacity[i] = i % 32 > 8 ? 1.0f : 0.0f;
    save_png(path("cutout.png"), leaf, opacity);
    const std::string box = " --box apple=32,32,96,96", subject = " --subject apple=";
    ASSERT_EQ(run(small("a.png") + box + subject + path("cutout.png")).code, 0);
    EXPECT_THAT(read_png_text(path("a.png")).at("fovea"),
                HasSubstr("\"subjects\":[\"apple=" + path("cutout.png") + "\"]"));
    ASSERT_EQ(run(small("b.png") + box).code, 0);
    EXPECT_NE(load_image(path("a.png")).rgb, load_image(path("b.png")).rgb);
    ASSERT_EQ(run("generate --from " + path("a.png") + " -o " + path("c.png")).code, 0);
    EXPECT_EQ(text("a.png"), text("c.png"));

    const auto error = [&](const std::string& options) {
        const auto found = run(small("d.png") + options);
        EXPECT_NE(found.code, 0);
        EXPECT_FALSE(fs::exists(path("d.png")));
        return found.err;
    };
    EXPECT_THAT(error(subject + path("cutout.png")), HasSubstr("\"apple\" has no box"));
    EXPECT_THAT(error(box + " --subject " + path("cutout.png")), HasSubstr("NAME=PICTURE.png"));
    save_png(path("opaque.png"), leaf);
    EXPECT_THAT(error(box + subject + path("opaque.png")), HasSubstr("--cutout"));
    save_png(path("empty.png"), leaf, std::vector<float>(32 * 32, 0));
    EXPECT_THAT(error(box + subject + path("empty.png")), HasSubstr("transparent all over"));
}

TEST_F(Cli, SeveralPicturesGoIntoAFolder) {
    ASSERT_EQ(run(small("many/") + " --count 2 --seed 3").code, 0);
    EXPECT_TRUE(fs::exists(folder_ / "many" / "fovea-3.png"));
    EXPECT_TRUE(fs::exists(folder_ / "many" / "fovea-4.png"));
}

TEST_F(Cli, UnknownWordsAreReported) {
    const auto result = run("generate 'a red aple' --size 128x128 --steps 1 -o " + path("a.png"));
    EXPECT_EQ(result.code, 0);
    EXPECT_THAT(result.err, HasSubstr("\"aple\""));
    EXPECT_THAT(result.err, HasSubstr("apple"));
}

TEST_F(Cli, TwoThingsAreAskedToStandSomewhere) {
    const auto said = [&](const std::string& prompt) {
        return run("generate '" + prompt + "' --size 128x128 --steps 1 -o " + path("a.png")).err;
    };
    EXPECT_THAT(said("a cat and a fork and knife on a blue background"),
                HasSubstr("as in \"a cat left of a fork and knife on a blue background\""));
    for (const char* good : {"a cat left of a pear", "a fork and knife", "a cat, red and blue"})
        EXPECT_THAT(said(good), ::testing::Not(HasSubstr("how they stand"))) << good;
    EXPECT_THAT(said("a cat and a pear' --box 'cat=0,0,64,64"),
                ::testing::Not(HasSubstr("how they stand")));
}

TEST_F(Cli, DryRunWritesNothing) {
    const auto result = run(small("a.png") + " --dry-run");
    EXPECT_EQ(result.code, 0);
    EXPECT_THAT(result.out, HasSubstr("device memory"));
    EXPECT_EQ(files(), 0u);
}

TEST_F(Cli, ProfileWritesATableAndATrace) {
    const auto result = run(small("a.png") + " --profile");
    EXPECT_EQ(result.code, 0);
    EXPECT_THAT(result.err, HasSubstr("gemm"));
    EXPECT_THAT(text("a.trace.json"), HasSubstr("traceEvents"));
}

TEST_F(Cli, ScoreSaysWhatIsSeen) {
    ASSERT_EQ(run("generate 'a red apple on a blue background' --steps 6 -o " + path("a.png")).code,
              0);
    const auto result = run("score " + path("a.png") + " 'a red apple on a blue background'");
    EXPECT_EQ(result.code, 0);
    EXPECT_THAT(result.out, HasSubstr("red apple"));
    EXPECT_THAT(result.out, HasSubstr("objects yes, background yes"));
    EXPECT_THAT(run("score --json " + path("a.png")).out, HasSubstr("\"background\": \"blue\""));
}

TEST_F(Cli, InterruptLeavesNoFile) {
    const pid_t child = fork();
    if (child == 0) {
        const std::string command = std::string("exec ") + FOVEA_PROGRAM +
                                    " generate 'a cat' --steps 1000 -o " + path("a.png") + " 2>" +
                                    path("err.txt");
        execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
        _exit(127);
    }
    std::this_thread::sleep_for(std::chrono::seconds(3));
    kill(child, SIGINT);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 130);
    EXPECT_EQ(files(), 0u);
}

}  // namespace
}  // namespace fovea
