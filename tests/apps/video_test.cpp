#include "vision/video.h"

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
    for (const char* arguments : {"video", "video 'a cat' -o cat.avi", "video 'a cat' --frames 100",
                                  "video 'a cat' --size 100x100", "video 'a cat' --pattern spiral",
                                  "video 'a cat' --dense-layers 99",
                                  "video 'a cat' --image /dev/null", "video --from /dev/null"}) {
        const auto result = run(arguments);
        EXPECT_EQ(result.code, 1) << arguments;
        EXPECT_THAT(result.err, HasSubstr("fovea: error: [")) << arguments;
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    }
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

TEST_F(VideoCli, DryRunSaysMemoryAndTime) {
    const auto result = run(small("a.mp4") + " --dry-run");
    EXPECT_EQ(result.code, 0);
    EXPECT_THAT(result.out, HasSubstr("device memory"));
    EXPECT_EQ(files(), 0u);
}

}  // namespace
}  // namespace fovea
