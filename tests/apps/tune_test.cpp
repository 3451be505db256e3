#include <fmt/format.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/apps/program.h"

/// `fovea tune`: emulated where the device has no matrix units, with few queries, which few tiles
/// fit.
namespace fovea {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class TuneCli : public testing::Program {
  protected:
    /// With a cache folder of its own; `variables` as of a shell.
    testing::Output run_with(const std::string& variables, const std::string& arguments) const {
        const std::string command =
            fmt::format("XDG_CACHE_HOME={} {} {} {} >{} 2>{} </dev/null", path("cache"), variables,
                        FOVEA_PROGRAM, arguments, path("out.txt"), path("err.txt"));
        const int status = std::system(command.c_str());
        return {WEXITSTATUS(status), text("out.txt"), text("err.txt")};
    }
    std::vector<std::filesystem::path> tables() const {
        std::vector<std::filesystem::path> found;
        std::error_code none;
        for (const auto& entry : std::filesystem::directory_iterator(path("cache/fovea"), none))
            if (entry.path().extension() == ".json") found.push_back(entry.path());
        return found;
    }
};

TEST_F(TuneCli, StoresWhatLaterRunsTake) {
    const std::string emulate = "FOVEA_EMULATE_MATRICES=1 FOVEA_LOG=debug";
    const auto tuned =
        run_with(emulate, "tune attention --shapes 1:16:16 --patterns dense --path khr");
    if (tuned.err.find("cannot run") != std::string::npos) GTEST_SKIP() << "khr does not run here";
    ASSERT_EQ(tuned.code, 0) << tuned.err;
    EXPECT_THAT(tuned.out, HasSubstr("attention dense 1x16x16: "));
    EXPECT_THAT(tuned.out, HasSubstr("stored in "));
    ASSERT_EQ(tables().size(), 1u);
    std::ifstream file(tables()[0]);
    const json stored = json::parse(file);
    ASSERT_EQ(stored["tiles"].size(), 1u);
    EXPECT_GT(stored["tiles"].front()["ms"].get<double>(), 0);

    const std::string bench =
        "bench attention --shapes 1:16:16 --patterns dense --paths khr --precision fp16 --seconds "
        "0";
    const auto taken = run_with(emulate, bench);
    EXPECT_EQ(taken.code, 0) << taken.err;
    EXPECT_THAT(taken.err, HasSubstr("tuning: 1 tiles of " + tables()[0].string()));
    const auto by_rule = run_with(emulate, bench + " --no-tune");
    EXPECT_EQ(by_rule.code, 0) << by_rule.err;
    EXPECT_THAT(by_rule.err, Not(HasSubstr("tuning:")));
}

TEST_F(TuneCli, SaysWhatIsWrong) {
    for (const auto& [variables, arguments, why] :
         {std::tuple("FOVEA_PATH=scalar", "tune gemm --shapes 16x16x16", "matrix units"),
          {"FOVEA_EMULATE_MATRICES=1", "tune gemm --shapes 3x3x3 --path khr", "none of these"},
          {"", "tune gemm --shapes no-such-shape", "no-such-shape"},
          {"", "tune conv --shapes 16x16x16", "none of these shapes"},
          {"", "tune attention --path sideways", "sideways"}}) {
        const auto result = run_with(variables, arguments);
        EXPECT_EQ(result.code, 1) << arguments;
        EXPECT_THAT(result.err, HasSubstr("fovea: error: [")) << arguments;
        EXPECT_THAT(result.err, HasSubstr(why)) << arguments;
    }
    EXPECT_EQ(run("tune softmax").code, 2);
    EXPECT_TRUE(tables().empty());
}

}  // namespace
}  // namespace fovea
