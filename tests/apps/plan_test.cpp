#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/apps/program.h"
#include "vision/image.h"
#include "vision/weights.h"

/// `fovea plan`. What it computes with: tests/backend/planner_boxes_test.cpp.
namespace fovea {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class PlanCli : public testing::Program {
  protected:
    json plan(const std::string& arguments) const {
        const auto result = run(fmt::format("plan --json {}", arguments));
        EXPECT_EQ(result.code, 0) << result.err;
        return json::parse(result.out, nullptr, false);
    }
};

TEST_F(PlanCli, CountsWhatTheVideoCosts) {
    const json found = plan(
        "--grid 30x48x80 --heads 24 --head-dim 128 --window 18x24x24 --stride 16x8x8 --tile 128x64 "
        "--peak 100 --efficiency 0.5");
    EXPECT_EQ(found["q_len"], 115200);
    EXPECT_NEAR(found["kept_share"].get<double>(), 0.09, 1e-12);
    EXPECT_NEAR(found["flop_bound"].get<double>(), 1 / 0.09, 1e-9);
    const double dense = 4.0 * 115200 * 115200 * 128 * 24;
    EXPECT_NEAR(found["dense_flops"].get<double>(), dense, 1);
    EXPECT_EQ(found["blocks"]["partial"], 0);
    EXPECT_EQ(found["blocks"]["visited"], 24.0 * 145800);
    EXPECT_EQ(found["boxes"][0]["queries"], "2x8x8");
    EXPECT_EQ(found["boxes"][0]["keys"], "1x8x8");
    EXPECT_EQ(found["tensor_bytes"], 4ull * 115200 * 128 * 24 * 2);
    EXPECT_LE(found["plan_bytes"].get<uint64_t>(), 64u << 20);
    EXPECT_NEAR(found["time"]["dense_seconds"].get<double>(), dense / 50e12, 1e-9);
    EXPECT_NEAR(found["time"]["speed_up"].get<double>(), 1 / 0.09, 1e-6);
    EXPECT_EQ(found["perfect"][0]["stride"], (std::vector<int>{16, 8, 8}));
}

TEST_F(PlanCli, MeasuresTheDevice) {
    const json found = plan("--grid 32x32 --heads 2 --window 7x7 --precision fp32");
    const json& time = found["time"];
    for (const char* rate : {"dense", "full", "partial"})
        EXPECT_GT(time[std::string(rate) + "_flops_per_second"].get<double>(), 1e6) << rate;
    const double block = 4.0 * 64 * found["tile"][0].get<double>() * found["tile"][1].get<double>();
    EXPECT_NEAR(time["partial_seconds"].get<double>(),
                found["blocks"]["partial"].get<double>() * block /
                    time["partial_flops_per_second"].get<double>(),
                1e-9);
    EXPECT_NEAR(time["seconds"].get<double>(),
                time["full_seconds"].get<double>() + time["partial_seconds"].get<double>(), 1e-9);
}

TEST_F(PlanCli, SaysWhatItFoundInWords) {
    const auto result = run("plan --grid 16x16 --window 5x5 --causal --peak 1");
    EXPECT_EQ(result.code, 0) << result.err;
    for (const char* part : {"neighborhood:5x5:causal=1", "256 (16x16)", "FLOP bound", "boxes",
                             "partial", "faster than dense", "without partial blocks"})
        EXPECT_THAT(result.out, HasSubstr(part));
    for (const char* pattern : {"dense", "radial:frames=4:block=16", "disc:3:text=5", "identity"})
        EXPECT_EQ(run(fmt::format("plan --grid 16x16 --peak 1 --pattern {}", pattern)).code, 0);
}

TEST_F(PlanCli, DrawsWhatIsSeen) {
    const auto color = [](const Image& image, int x, int y) {
        const float* p = image.rgb.data() + 3 * (y * image.width + x);
        return std::array{p[0], p[1], p[2]};
    };
    for (const char* grid : {"8x8", "128x128", "4x8x8"}) {
        ASSERT_EQ(run(fmt::format("plan --grid {} --window 3 --peak 1 --tile 16x16 --draw {}", grid,
                                  path("map.png")))
                      .code,
                  0);
        const Image image = load_image(path("map.png"));
        EXPECT_GT(image.width, image.height);
        EXPECT_LT(image.width * image.height, 2000 * 1000);
        std::set<std::array<float, 3>> colors;
        for (int y = 0; y < image.height; ++y)
            for (int x = 0; x < image.width; ++x) colors.insert(color(image, x, y));
        int reds = 0;
        for (const auto& [r, g, b] : colors) reds += r > 0.7f && g < 0.3f && b < 0.3f;
        EXPECT_EQ(reds, 1) << grid;  // the query
    }
    // The first token sees the corner of a plane: its cell, and the window's beside it.
    run(fmt::format("plan --grid 8x8 --window 3 --peak 1 --tile 16x16 --query 0 --draw {}",
                    path("map.png")));
    const Image image = load_image(path("map.png"));
    const int cell = 40, left = image.width - 8 - 8 * cell, top = (image.height - 8 * cell) / 2;
    EXPECT_GT(color(image, left + 5, top + 5)[0], 0.7f);
    EXPECT_LT(color(image, left + 2 * cell + 5, top + 2 * cell + 5)[0], 0.3f);
    EXPECT_GT(color(image, left + 3 * cell + 5, top + 5)[1], 0.8f);
}

TEST_F(PlanCli, DrawsWhatIsLarge) {
    for (const char* grid : {"1048576", "1048576x1"}) {
        ASSERT_EQ(run(fmt::format("plan --grid {} --window {} --peak 1 --draw {}", grid,
                                  grid == std::string("1048576") ? "3" : "3x1", path("map.png")))
                      .code,
                  0);
        const Image image = load_image(path("map.png"));
        EXPECT_LT(image.width, 2000) << grid;
        EXPECT_LT(image.height, 10000) << grid;
    }
    // Half of all blocks of 1 x 1: counted, not listed, where other boxes are better.
    EXPECT_EQ(plan("--grid 32768x1 --window 16384x1 --peak 1")["q_len"], 32768);
}

TEST_F(PlanCli, LongDiscsArePlannedAtOnce) {
    EXPECT_EQ(plan("--grid 1x30000 --pattern disc:8 --peak 1")["q_len"], 30000);
}

TEST_F(PlanCli, PlansCasesOfFiles) {
    const auto values = [](size_t n) { return std::vector<float>(n, 0.5f); };
    const std::vector<float> mask{1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0,
                                  1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1};
    const std::vector<NamedTensor> tensors = {{"q", StoredType::F16, {1, 2, 40, 8}, values(640)},
                                              {"k", StoredType::F16, {1, 2, 70, 8}, values(1120)},
                                              {"v", StoredType::F16, {1, 2, 70, 8}, values(1120)},
                                              {"block_mask", StoredType::U8, {2, 3, 5}, mask}};
    write_safetensors(
        path("case.safetensors"), tensors,
        {{"spec", R"({"pattern": {"type": "block_sparse", "block_q": 16, "block_k": 16}})"}});
    const json found = plan(fmt::format("--peak 1 --tile 16x16 --head 1 --draw {} --case {}",
                                        path("map.png"), path("case.safetensors")));
    EXPECT_EQ(found["q_len"], 40);
    EXPECT_EQ(found["kv_len"], 70);
    EXPECT_EQ(found["heads"], 2);
    EXPECT_EQ(found["blocks"]["visited"], 3 + 7);
    EXPECT_EQ(found["blocks"]["all"], 30);
    EXPECT_GT(load_image(path("map.png")).width, 100);
}

TEST_F(PlanCli, ErrorsSayWhatIsExpected) {
    const auto refuses = [&](const std::string& arguments, const char* why) {
        const auto result = run(fmt::format("plan --peak 1 {}", arguments));
        EXPECT_EQ(result.code, 1) << arguments;
        EXPECT_THAT(result.err, HasSubstr(why)) << arguments;
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << arguments;
    };
    refuses("--window 7x7", "--grid is missing");
    refuses("--grid 16x --window 7", "expected sizes as in");
    refuses("--grid 16xx16 --window 7", "expected sizes as in");
    refuses("--grid 0x16 --window 7", "expected sizes as in");
    refuses("--grid 2x2x2x2 --window 1", "1 to 3 axes");
    refuses("--grid 99999x99999 --window 1", "at most 2^20");
    refuses("--grid 16x16", "needs a --window");
    refuses("--grid 16x16 --window 17x7", "window × dilation");
    refuses("--grid 16x16 --pattern dense --window 7x7", "only beside");
    refuses("--grid 16x16 --pattern spiral", "expected one of");
    refuses("--grid 16x16 --pattern block_sparse", "fovea attention");
    refuses("--grid 16x16 --window 7x7 --tile 16", "QUERIESxKEYS");
    refuses("--grid 16x16 --window 7x7 --draw map.jpg", "expected a .png");
    refuses("--grid 16x16 --window 7x7 --query 256", "expected 0 to 255");
    refuses("--grid 16x16 --window 7x7 --head 1", "expected 0 to 0");
    refuses("--grid 16x16 --window 7x7 --head-dim 60", "multiple of 8");
    refuses("--case /no/such/file", "/no/such/file");
    refuses("--grid 16x16 --window 7x7 --draw /no/such/map.png", "no folder /no/such");
    refuses("--grid 16x16 --window 7x7 --path bogus", "found \"bogus\"");
    refuses("--grid 16x16 --pattern radial:frames=16", "would see no key");
    refuses("--grid 1024x1024 --pattern disc:3:text=1", "at most 2^20");
    for (const char* option : {"--grid 4", "--window 1", "--heads 2", "--pattern dense"})
        EXPECT_EQ(run(fmt::format("plan --peak 1 --case f {}", option)).code, 2) << option;
    EXPECT_EQ(run("plan --grid 16x16 --window 7x7 --device no-such-device").code, 1);
    EXPECT_EQ(run("plan --grid 16x16 --window 7x7 --heads 0").code, 2);
    EXPECT_EQ(files(), 0u);
    EXPECT_THAT(run("plan --help").out, HasSubstr("radial[:[decay=]"));
}

}  // namespace
}  // namespace fovea
