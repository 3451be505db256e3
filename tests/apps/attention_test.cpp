#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/apps/program.h"
#include "vision/weights.h"

/// `fovea attention`. Reading of cases: tests/pipelines/attention_case_test.cpp.
namespace fovea {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class AttentionCli : public testing::Program {
  protected:
    /// Two tokens, the second key twice as far along q: weights in the ratio exp(scale · 1).
    std::string write_case(
        const std::string& name, bool expected, float wrong = 0,
        const std::string& spec = R"({"pattern": {"type": "dense"}, "scale": 1})") {
        std::vector<float> q(2 * 8, 0), k(2 * 8, 0), v(2 * 8, 0);
        q[0] = q[8] = 1;
        k[8] = 1;
        for (int c = 0; c < 8; ++c) v[8 + c] = 1;
        std::vector<NamedTensor> tensors = {{"q", StoredType::F16, {1, 1, 2, 8}, q},
                                            {"k", StoredType::F16, {1, 1, 2, 8}, k},
                                            {"v", StoredType::F16, {1, 1, 2, 8}, v}};
        if (expected) {
            const float share = 0.7310585786f;  // e / (1 + e)
            tensors.push_back(
                {"o", StoredType::F32, {1, 1, 2, 8}, std::vector<float>(2 * 8, share + wrong)});
            tensors.push_back({"lse", StoredType::F32, {1, 1, 2}, {1.3132616875f, 1.3132616875f}});
        }
        write_safetensors(path(name), tensors, {{"spec", spec}});
        return path(name);
    }
};

TEST_F(AttentionCli, OneLineACaseAndItsResult) {
    const auto good = write_case("good.safetensors", true);
    const auto result = run("attention " + good + " -o " + path("out.safetensors"));
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 1);
    for (const char* part :
         {"good.safetensors", "dense", "1×1×2×8", "scalar fp32", "1e-04", "1e-03", ": ok"})
        EXPECT_THAT(result.out, HasSubstr(part));
    const Weights out = Weights::open(path("out.safetensors"));
    EXPECT_THAT(out.names(), ElementsAre("lse", "o"));
    EXPECT_NEAR(out.floats("o", {1, 1, 2, 8})[5], 0.7310586f, 1e-6f);
    EXPECT_NEAR(out.floats("lse", {1, 1, 2})[1], 1.3132617f, 1e-6f);
}

TEST_F(AttentionCli, ScoresThatAPathHasNot) {
    const auto good = write_case("good.safetensors", true);
    const auto scalar = run("attention --scores int8 --path scalar " + good);
    EXPECT_EQ(scalar.code, 1);
    EXPECT_THAT(scalar.err, HasSubstr("matrix units"));
    EXPECT_THAT(run("attention --scores int4 " + good).err, HasSubstr("stored or int8"));
}

TEST_F(AttentionCli, JsonHasOneObjectALine) {
    const auto good = write_case("good.safetensors", true);
    const auto plain = write_case("plain.safetensors", false);
    const auto bad = write_case("bad.safetensors", true, 0.01f);
    const auto result = run("attention --json " + good + " " + plain + " " + bad);
    EXPECT_EQ(result.code, 1);
    EXPECT_THAT(result.err, HasSubstr("1 of 3 cases failed"));
    std::istringstream lines(result.out);
    std::vector<json> found;
    for (std::string line; std::getline(lines, line);) found.push_back(json::parse(line));
    ASSERT_EQ(found.size(), 3u);
    EXPECT_EQ(found[0]["case"], good);
    EXPECT_EQ(found[0]["path"], "scalar");
    EXPECT_EQ(found[0]["precision"], "fp32");
    EXPECT_LE(found[0]["max_err_o"].get<double>(), 1e-6);
    EXPECT_LE(found[0]["max_err_lse"].get<double>(), 1e-6);
    EXPECT_EQ(found[0]["ok"], true);
    EXPECT_TRUE(found[1]["max_err_o"].is_null());
    EXPECT_TRUE(found[1]["max_err_lse"].is_null());
    EXPECT_EQ(found[1]["ok"], true);
    EXPECT_NEAR(found[2]["max_err_o"].get<double>(), 0.01, 1e-5);
    EXPECT_EQ(found[2]["ok"], false);
}

TEST_F(AttentionCli, ToleranceAndPrecision) {
    const auto off = write_case("off.safetensors", true, 5e-3f);
    EXPECT_EQ(run("attention " + off).code, 1);
    const auto half = run("attention --precision fp16 " + off);
    EXPECT_EQ(half.code, 0);
    EXPECT_THAT(half.out, HasSubstr("scalar fp16"));
}

TEST_F(AttentionCli, SeveralCasesGoIntoAFolder) {
    const auto a = write_case("a.safetensors", true), b = write_case("b.safetensors", false);
    EXPECT_EQ(run("attention " + a + " " + b + " -o " + path("results")).code, 0);
    EXPECT_TRUE(fs::exists(folder_ / "results" / "a.safetensors"));
    EXPECT_TRUE(fs::exists(folder_ / "results" / "b.safetensors"));
    const auto twice = run("attention " + a + " " + a + " -o " + path("again"));
    EXPECT_EQ(twice.code, 1);
    EXPECT_THAT(twice.err, HasSubstr("two cases have one name"));
    const auto lost = run("attention " + a + " -o " + path("no/such/out.safetensors"));
    EXPECT_EQ(lost.code, 1);
    EXPECT_EQ(lost.out, "");  // before the work
    EXPECT_THAT(lost.err, HasSubstr("there is no folder " + path("no/such")));
}

TEST_F(AttentionCli, ErrorsAreOneLineAndNameTheFile) {
    const auto good = write_case("good.safetensors", true);
    const auto spiral =
        write_case("spiral.safetensors", true, 0, "{\"pattern\": {\"type\": \"a\\nb\"}}");
    std::ofstream(path("text.safetensors")) << "no tensors here";
    for (const auto& [file, what] : {std::pair{spiral, "expected one of"},
                                     {path("text.safetensors"), "header"},
                                     {path("absent.safetensors"), "absent"},
                                     {path("."), ""}}) {
        const auto result = run("attention " + file + " -o " + path("never.safetensors"));
        EXPECT_EQ(result.code, 1) << file;
        EXPECT_THAT(result.err, HasSubstr("fovea: error: [")) << file;
        EXPECT_THAT(result.err, HasSubstr(file));
        EXPECT_THAT(result.err, HasSubstr(what));
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
        EXPECT_FALSE(fs::exists(path("never.safetensors")));
    }
    // The others run all the same.
    const auto both = run("attention --json " + spiral + " " + good);
    EXPECT_EQ(both.code, 1);
    EXPECT_THAT(both.out, HasSubstr("\"ok\":true"));
    EXPECT_THAT(both.out, HasSubstr("\"error\":\""));
    EXPECT_THAT(run("attention " + good + " --path fastest").err, HasSubstr("fastest"));
    EXPECT_THAT(run("attention " + good + " --precision fp8").err, HasSubstr("\"fp8\""));
    EXPECT_EQ(run("attention").code, 2);
}

// Matrix units multiply fp16: that is the default of a forced matrix path, and fp32 an error that
// says so, with or without such units.
TEST_F(AttentionCli, ForcedPaths) {
    const auto good = write_case("good.safetensors", true);
    for (const char* name : {"khr", "nv2"}) {
        const auto wide = run("attention " + good + " --precision fp32 --path " + name);
        EXPECT_EQ(wide.code, 1);
        EXPECT_THAT(wide.err, HasSubstr(name));
        const auto half = run("attention " + good + " --path " + name);
        if (half.code == 0)
            EXPECT_THAT(half.out, HasSubstr(std::string(name) + " fp16"));
        else
            EXPECT_THAT(half.err, HasSubstr("cannot run"));
        ::setenv("FOVEA_PATH", name, 1);
        const auto forced = run("attention " + good);
        ::unsetenv("FOVEA_PATH");
        EXPECT_EQ(forced.code, half.code);
        EXPECT_EQ(forced.err, half.err);
    }
    EXPECT_THAT(run("attention " + good + " --path scalar").out, HasSubstr("scalar fp32"));
}

// A few of them; the library's tests have all, on every path.
TEST_F(AttentionCli, ParityCases) {
    const char* shared = std::getenv("FOVEA_SHARED");
    const std::string folder =
        (shared ? std::string(shared) : std::string(FOVEA_SOURCE_DIR) + "/../shared") + "/parity";
    if (!fs::exists(folder)) GTEST_SKIP() << "no parity cases in " << folder;
    const auto result =
        run(fmt::format("attention {0}/na3d*.safetensors {0}/softpag*.safetensors", folder));
    EXPECT_EQ(result.code, 0) << result.out << result.err;
    EXPECT_THAT(result.out, Not(HasSubstr("FAILED")));
    EXPECT_GE(std::count(result.out.begin(), result.out.end(), '\n'), 6);
}

}  // namespace
}  // namespace fovea
