#include "vision/video.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>

#include "tests/apps/program.h"

namespace fovea {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// The shortest clips, without guidance: a second or two each.
class VideoCli : public testing::Program {
  protected:
    std::string small(const std::string& name) const {
        return "video 'a red apple on a blue background' --frames 8 --steps 1 --cfg 1 -o " +
               path(name);
    }
};

TEST_F(VideoCli, HelpTeaches) {
    const auto help = run("video --help");
    EXPECT_EQ(help.code, 0);
    for (const char* word : {"Examples", "radial", "neighborhood", "--dense-steps", "auto is"})
        EXPECT_THAT(help.out, HasSubstr(word));
}

TEST_F(VideoCli, ErrorsAreOneLineAndLeaveNoFile) {
    for (const char* arguments :
         {"video", "video 'a cat' -o cat.avi", "video 'a cat' --frames 100",
          "video 'a cat' --size 100x100", "video 'a cat' --pattern spiral",
          "video 'a cat' --dense-layers 99", "video 'a cat' --image /dev/null",
          "video --from /dev/null", "video --from none-%d.png", "video 'a cat' --frames 1001",
          "video 'a cat' -o cat-%s.png", "video 'a cat' --calibration /dev/null",
          "video 'a cat' --frames 8 --steps 1 --cfg 1 -o /proc/cat.webp"}) {
        const auto result = run(arguments);
        EXPECT_EQ(result.code, 1) << arguments;
        EXPECT_THAT(result.err, HasSubstr("fovea: error: [")) << arguments;
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    }
    EXPECT_THAT(run("video 'a cat' --pattern spiral").err, HasSubstr("radial"));
    EXPECT_THAT(run("video 'a cat' --pattern spiral").err, HasSubstr("rectified, rettention:of="));
    for (const char* frames : {"0", "-8"})
        EXPECT_THAT(run(std::string("video 'a cat' --frames ") + frames).err,
                    HasSubstr(std::string(frames) + " frames found, expected 8 to 24"));
    EXPECT_EQ(run("video 'a cat' --fps 0").code, 2);
    EXPECT_EQ(files(), 0u);
}

TEST_F(VideoCli, AClipIsMadeAgainFromItself) {
    const auto result =
        run(small("a.webp") + " --guidance pag:1@blocks=7 --seed 5 --fps 12 --preview 1 --json");
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("\"encoded\": \"animated WebP\""));
    const Clip clip = load_video(path("a.webp"));
    EXPECT_EQ(clip.frames.size(), 8u);
    EXPECT_NEAR(clip.fps, 12, 0.1);
    for (const char* key :
         {"prompt", "seed", "frames", "fps", "pattern", "guidance", "dense_steps", "model"})
        EXPECT_THAT(clip.text, HasSubstr(std::string("\"") + key + "\""));
    ASSERT_EQ(run("video --from " + path("a.webp") + " -o " + path("b.webp")).code, 0);
    EXPECT_EQ(text("a.webp"), text("b.webp"));  // same bits, same text
    EXPECT_EQ(files(), 2u);                     // the preview is gone
}

TEST_F(VideoCli, AFrameOrTheirPatternIsEnoughToMakeAClipAgain) {
    ASSERT_EQ(run(small("a-%02d.png") + " --seed 5 --fps 12").code, 0);
    for (const char* from : {"a-03.png", "a-%02d.png"}) {
        const auto result = run("video --from " + path(from) + " -o " + path("b-%02d.png"));
        ASSERT_EQ(result.code, 0) << from << result.err;
        EXPECT_EQ(text("a-08.png"), text("b-08.png")) << from;
        std::filesystem::remove(path("b-08.png"));
    }
    ASSERT_EQ(run("generate 'a red apple' --size 128x128 --steps 1 -o " + path("p.png")).code, 0);
    const auto picture = run("video --from " + path("p.png") + " -o " + path("c.webp"));
    EXPECT_EQ(picture.code, 1);
    EXPECT_THAT(picture.err, HasSubstr("nothing of frames"));
}

TEST_F(VideoCli, AnInterruptedClipLeavesNothing) {
    const std::string preview = path("a.webp.preview.png");
    // In the shell: begun, interrupted when it has shown something.
    run(fmt::format(
            "video 'a red apple' --frames 8 --cfg 1 --steps 1000 --preview 1 -o {} 2>{} & made=$!; "
            "for i in $(seq 600); do test -e {} && break; sleep 0.1; done; kill -INT $made; "
            "wait $made; test",
            path("a.webp"), path("said.txt"), preview),
        bare_program());
    EXPECT_THAT(text("said.txt"), HasSubstr("nothing written"));
    EXPECT_EQ(files(), 0u);
}

TEST_F(VideoCli, CalibrateRefusesWhatNoClipUses) {
    for (const auto& [arguments, message] : {std::pair{"--frames 25", "8 to 24"},
                                             {"--frames 0", "8 to 24"},
                                             {"--dense-steps 24", "expected fewer"},
                                             {"--draw masks.jpg", ".png"},
                                             {"--block 4000000000", "blocks of 1 to 1024 tokens"},
                                             {"--ranges -1,1", "ascend"},
                                             {"''", "an empty prompt"}}) {
        const auto result =
            run(fmt::format("calibrate 'a cat' -o {} {}", path("m.safetensors"), arguments));
        EXPECT_EQ(result.code, 1) << arguments;
        EXPECT_THAT(result.err, HasSubstr(message)) << arguments;
    }
    const auto folder = run("calibrate 'a cat' -o " + folder_.string());
    EXPECT_EQ(folder.code, 1);
    EXPECT_THAT(folder.err,
                HasSubstr("--output " + folder_.string() + " found, which is a folder"));
    const auto no_number = run("calibrate 'a cat' --ranges nan,1 -o " + path("m.safetensors"));
    EXPECT_EQ(no_number.code, 2);
    EXPECT_THAT(no_number.err, HasSubstr("nan found, expected a number"));
    for (const char* option : {"--seed", "--block"}) {
        const auto minus =
            run(fmt::format("calibrate 'a cat' {} -1 -o {}", option, path("m.safetensors")));
        EXPECT_EQ(minus.code, 2) << option;
        EXPECT_THAT(minus.err, HasSubstr("-1 found, expected a whole number")) << option;
    }
    EXPECT_EQ(run("video 'a cat' --seed -1 --dry-run").code, 2);
    EXPECT_EQ(files(), 0u);
}

TEST_F(VideoCli, DryRunSaysMemoryAndTime) {
    const auto result = run(small("a.mp4") + " --dry-run");
    EXPECT_EQ(result.code, 0);
    EXPECT_THAT(result.out, HasSubstr("device memory"));
    EXPECT_EQ(files(), 0u);
}

}  // namespace
}  // namespace fovea
