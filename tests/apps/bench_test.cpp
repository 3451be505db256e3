#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/apps/program.h"
#include "vision/image.h"

/// `fovea bench`: on whatever device the tests have, with shapes that take no time.
namespace fovea {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

class BenchCli : public testing::Program {
  protected:
    void write(const std::string& name, const json& document) const {
        std::ofstream(path(name)) << document.dump();
    }
    json read(const std::string& name) const { return json::parse(text(name), nullptr, false); }
};

TEST_F(BenchCli, MeasuresAndChecksEveryOp) {
    const auto result = run(fmt::format(
        "bench attention gemm conv --shapes small --precision fp32 --seconds 0.01 --json {} "
        "--markdown {} --plot {}",
        path("own.json"), path("own.md"), path("own.svg")));
    ASSERT_EQ(result.code, 0) << result.err;
    const json found = read("own.json");
    EXPECT_GT(found["peaks"]["fma_tflops"].get<double>(), 0);
    EXPECT_GT(found["peaks"]["bandwidth_gb_s"].get<double>(), 0);
    ASSERT_EQ(found["rows"].size(), 10u) << result.out;
    for (const json& row : found["rows"]) {
        for (const char* key : {"device", "op", "set", "pattern", "shape", "grid", "dtype", "path",
                                "density", "ok", "error", "first_seconds", "ms", "spread_ms",
                                "runs", "input_sets", "tflops", "peak_share", "bandwidth_share"})
            EXPECT_TRUE(row.contains(key)) << key << " " << row;
        EXPECT_TRUE(row["ok"].get<bool>()) << row;
        EXPECT_GT(row["ms"].get<double>(), 0) << row;
        EXPECT_GE(row["runs"].get<int>(), 3) << row;
        EXPECT_LT(row["error"].get<double>(), 1e-3) << row;
        EXPECT_EQ(row.contains("dense_ms"), row["pattern"] != "dense") << row;
        const double blocks = row["density"]["blocks"], pairs = row["density"]["pairs"];
        EXPECT_LE(pairs, blocks) << row;
        if (row["pattern"] == "neighborhood:7x7") {
            EXPECT_NEAR(pairs, 49.0 / 256, 1e-12);
        }
        if (row["pattern"] == "dense") {
            EXPECT_EQ(pairs, 1);
        }
        if (row["pattern"] == "perturbed") {
            EXPECT_EQ(blocks, 0);
        }
    }
    EXPECT_TRUE(found["masks"].contains("block_sparse:64:density=0.3 4x256x64"));
    EXPECT_THAT(text("own.md"), HasSubstr("| neighborhood:7x7 f32 | "));
    EXPECT_THAT(text("own.svg"), HasSubstr("</svg>"));
}

TEST_F(BenchCli, MeasuresAnyShapeAndPattern) {
    const auto result =
        run(fmt::format("bench attention --shapes 6:4x4x8:16 --precision fp32 --seconds 0 "
                        "--patterns reordered:16,perturbed:0.5,radial:block=16:text=9 --json {}",
                        path("own.json")));
    ASSERT_EQ(result.code, 0) << result.err;
    const json found = read("own.json");
    std::map<std::string, json> rows;
    for (const json& row : found["rows"])
        rows[row["pattern"].get<std::string>() + " " + row["shape"].get<std::string>()] = row;
    EXPECT_EQ(rows.size(), 5u) << result.out;  // dense with the text tokens and without
    EXPECT_TRUE(rows.contains("dense 6x128x16"));
    EXPECT_TRUE(rows.contains("dense 6x137x16"));
    EXPECT_TRUE(rows.contains("radial:block=16:text=9 6x137x16"));
    EXPECT_TRUE(rows.contains("reordered:16 6x128x16"));
    EXPECT_EQ(rows["perturbed:0.5 6x128x16"]["density"]["blocks"], 0.5);
}

// In fp16; the README's example runs them in fp32.
TEST_F(BenchCli, MeasuresAndChecksModels) {
    const auto result =
        run(fmt::format("bench model --shapes small --precision fp16 --seconds 0.01 --json {} "
                        "--markdown {}",
                        path("own.json"), path("own.md")));
    ASSERT_EQ(result.code, 0) << result.out << result.err;
    const json found = read("own.json");
    std::set<std::string> kinds;
    ASSERT_EQ(found["rows"].size(), 10u) << result.out;
    for (const json& row : found["rows"]) {
        EXPECT_EQ(row["op"], "model");
        EXPECT_TRUE(row["ok"].get<bool>()) << row;
        EXPECT_GT(row["error"].get<double>(), 0) << row;
        EXPECT_LT(row["error"].get<double>(), 1e-2) << row;
        EXPECT_GT(row["attention_ms"].get<double>(), 0) << row;
        EXPECT_LT(row["attention_share"].get<double>(), 1) << row;
        EXPECT_GT(row["memory_bytes"].get<double>(), 0) << row;
        EXPECT_GT(row["tflops"].get<double>(), 0) << row;
        EXPECT_EQ(row.contains("dense_ms"), row["pattern"] != "dense") << row;
        EXPECT_EQ(row["density"]["pairs"] == 1, row["pattern"] == "dense") << row;
        kinds.insert(row["model"]["kind"]);
    }
    EXPECT_THAT(kinds, ::testing::UnorderedElementsAre("dit", "wan", "double", "single"));
    EXPECT_THAT(text("own.md"), HasSubstr("## model"));
}

TEST_F(BenchCli, MergesWithPeers) {
    const auto row = [](const char* pattern, const char* kernel, double ms) {
        return json{{"op", "attention"}, {"pattern", pattern}, {"shape", "2x64x8"},
                    {"dtype", "f16"},    {"path", kernel},     {"ms", ms}};
    };
    json wrong = row("dense", "khr", 1);
    wrong["ok"] = false;
    write("own.json", {{"engine", "fovea 1"},
                       {"device", "D"},
                       {"rows",
                        {row("dense", "scalar", 8), row("dense", "nv2", 4), wrong,
                         row("neighborhood:3x3", "nv2", 0.5)}}});
    write("torch.json", {{"engine", "torch 2"},
                         {"device", "D"},
                         {"rows",
                          {row("dense", "cudnn", 3), row("dense", "flash2", 6),
                           row("neighborhood:3x3", "flex", 2)}}});
    const auto result =
        run(fmt::format("bench --merge {} {} --json {} --markdown {} --plot {}", path("own.json"),
                        path("torch.json"), path("both.json"), path("both.md"), path("both.svg")));
    ASSERT_EQ(result.code, 0) << result.err;
    const json rows = read("both.json")["rows"];
    ASSERT_EQ(rows.size(), 2u);
    EXPECT_EQ(rows[0]["path"], "nv2");  // the fastest right one
    EXPECT_EQ(rows[0]["ms"], 4);
    EXPECT_EQ(rows[0]["peers"]["cudnn"]["ratio"], 0.75);
    EXPECT_EQ(rows[0]["peers"]["flash2"]["ratio"], 1.5);
    EXPECT_TRUE(rows[0]["dense_peers"].empty());
    EXPECT_EQ(rows[1]["peers"]["flex"]["ratio"], 4);
    EXPECT_EQ(rows[1]["dense_peers"]["cudnn"]["ratio"], 6);
    EXPECT_THAT(text("both.md"), HasSubstr("3 (0.75×)"));
    EXPECT_THAT(text("both.md"), HasSubstr("cudnn 3 (6.00×), flash2 6 (12.00×)"));
    EXPECT_THAT(text("both.svg"), HasSubstr("fovea nv2"));
    EXPECT_EQ(result.out, text("both.md"));
}

TEST_F(BenchCli, MergesModels) {
    const auto row = [](const char* pattern, const char* kernel, double ms) {
        return json{{"op", "model"},  {"pattern", pattern}, {"shape", "wan block"},
                    {"dtype", "f16"}, {"path", kernel},     {"ms", ms}};
    };
    json sparse = row("radial", "nv2", 2);
    sparse.update({{"attention_ms", 0.5},
                   {"attention_share", 0.25},
                   {"memory_bytes", 3 << 29},
                   {"dense_ms", 5}});
    write("own.json",
          {{"engine", "fovea 1"}, {"device", "D"}, {"rows", {row("dense", "nv2", 5), sparse}}});
    write("torch.json",
          {{"engine", "torch 2"}, {"device", "D"}, {"rows", {row("dense", "compiled", 4)}}});
    const auto result =
        run(fmt::format("bench --merge {} {}", path("own.json"), path("torch.json")));
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("| wan block | radial  |"));
    EXPECT_THAT(result.out,
                HasSubstr("| 0.5 | 25 % | 1.50 | 5 (2.50×) | – | compiled 4 (2.00×) |"));
    EXPECT_THAT(result.out, HasSubstr("| 4 (0.80×) |"));
}

TEST_F(BenchCli, ErrorsSayWhatWasFoundAndExpected) {
    write("rows.json", {{"engine", "fovea 1"}, {"device", "D"}});
    write("row.json", {{"engine", "fovea 1"}, {"device", "D"}, {"rows", {{{"op", 3}}}}});
    write("ms.json", {{"engine", "fovea 1"},
                      {"device", "D"},
                      {"rows",
                       {{{"op", "gemm"},
                         {"pattern", "dense"},
                         {"shape", "1x1x1"},
                         {"dtype", "f16"},
                         {"path", "x"},
                         {"ms", -1}}}}});
    const std::pair<std::string, std::string> cases[] = {
        {"bench", "nothing to measure"},
        {"bench attention --shapes nope", "expected of small, flux"},
        {"bench attention --shapes 4:16:60", "HEADS:GRID:HEAD_DIM"},
        {"bench attention --shapes 4:16:64 --patterns block_sparse:64", "block_sparse"},
        {"bench attention --shapes 4:16:64 --patterns perturbed:2", "perturbed:SHARE"},
        {"bench attention --shapes 4:16:64 --patterns neighborhood:99", "found 99"},
        {"bench attention --paths warp", "found \"warp\""},
        {"bench conv --shapes sd3", "none of these shapes"},
        {"bench gemm --merge x.json", "expected one of the two"},
        {"bench --merge nowhere.json", "nowhere.json cannot be read"},
        {"bench --merge " + path("rows.json"), "\"rows\" is missing"},
        {"bench --merge " + path("row.json"), "row 0: \"op\" is missing or no text, found 3"},
        {"bench --merge " + path("ms.json"), "number above 0, found -1"}};
    for (const auto& [arguments, message] : cases) {
        const auto result = run(arguments);
        EXPECT_EQ(result.code, 1) << arguments;
        EXPECT_THAT(result.err, HasSubstr(message)) << arguments;
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    }
}

TEST_F(BenchCli, CalibrationAndMethodsOnShortClips) {
    const auto made = run(fmt::format(
        "calibrate 'a red fox moving left' --frames 8 --steps 2 --cfg 1 --ranges 0.5,1 --density "
        "0.4 --precision fp32 -o {} --draw {}",
        path("masks.safetensors"), path("masks.png")));
    ASSERT_EQ(made.code, 0) << made.err;
    EXPECT_THAT(made.out, HasSubstr("layer  7 head  3"));
    EXPECT_THAT(made.out, HasSubstr("of the blocks of 16 tokens kept"));
    EXPECT_EQ(files(), 2u);

    const auto measured = run(fmt::format(
        "bench video --clips 1 --frames 2 --steps 2 --dense-steps 0 --densities 0.5 --methods "
        "reordered,rectified --precision fp32 --markdown {} --picture {}",
        path("report.md"), path("report.png")));
    ASSERT_EQ(measured.code, 0) << measured.err;
    const std::string report = text("report.md");
    EXPECT_THAT(report, HasSubstr("| reordered | calibrated, 0 dense steps | 0.50 | 0."));
    EXPECT_THAT(
        report,
        HasSubstr("| rectified | rectified:keep=0.500:mass=0:block=16, 0 dense steps | 0.50 | 0."));
    EXPECT_EQ(files(), 4u);
}

TEST_F(BenchCli, GuidanceIsMeasuredWithAndWithoutPrompts) {
    const auto measured =
        run(fmt::format("bench guidance --count 2 --size 128 --steps 2 --guidance pag:1@blocks=4 "
                        "--precision fp32 --json {} --markdown {} --picture {}",
                        path("g.json"), path("g.md"), path("g.png")));
    ASSERT_EQ(measured.code, 0) << measured.err;
    const json document = json::parse(text("g.json"));
    const json& rows = document.at("rows");
    ASSERT_EQ(rows.size(), 3u);
    EXPECT_EQ(rows[0].at("passes"), 1.5);
    EXPECT_EQ(rows[1].at("prompted"), false);
    EXPECT_EQ(rows[2].at("at_cost_of"), "none");
    EXPECT_EQ(rows[2].at("steps"), 1);
    for (const auto& row : rows) {
        EXPECT_GT(row.at("confidence"), 0);
        EXPECT_GT(row.at("step_ms"), 0);
        EXPECT_LE(row.at("recognised"), 2);
    }
    EXPECT_THAT(text("g.md"), HasSubstr("| with | pag:1@blocks=4 | 2 |"));
    EXPECT_EQ(files(), 3u);
}

/// A clip of two frames with a red box that moves by 16 pixels, or its regions.
class BenchClips : public BenchCli {
  protected:
    BenchClips() {
        draw("0.png", 40, 32, {0.9f, 0.1f, 0.1f}, {0.2f, 0.4f, 0.9f});
        draw("1.png", 56, 32, {0.9f, 0.1f, 0.1f}, {0.2f, 0.4f, 0.9f});
        draw("r0.png", 32, 48, {1, 1, 1}, {0, 0, 0});
        draw("r1.png", 48, 48, {1, 1, 1}, {0, 0, 0});
        draw("small.png", 8, 8, {1, 1, 1}, {0, 0, 0}, 64);
    }
    void draw(const std::string& name, int left, int box, std::array<float, 3> inside,
              std::array<float, 3> around, int side = 128) const {
        Image image{side, side, {}};
        for (int y = 0; y < side; ++y)
            for (int x = 0; x < side; ++x) {
                const int top = (side - box) / 2;
                const bool in = x >= left && x < left + box && y >= top && y < top + box;
                const auto& color = in ? inside : around;
                image.rgb.insert(image.rgb.end(), color.begin(), color.end());
            }
        save_png(path(name), image);
    }
    static json one() {
        return {{"frames", {"0.png", "1.png"}},
                {"prompt", "a red apple moving right on a blue background"},
                {"edit",
                 {{"kind", "object"},
                  {"prompt", "a pear moving right on a blue background"},
                  {"regions", {"r0.png", "r1.png"}},
                  {"path", {{0.4375, 0.5, 0.25, 0}, {0.5625, 0.5, 0.25, 0}}}}}};
    }
    std::string cases(const json& entry) const {
        write("cases.json", {{"cases", {one(), entry}}});
        return " --cases " + path("");
    }
};

TEST_F(BenchClips, WrongCasesAreNamed) {
    const auto with = [](auto change) {
        json entry = one();
        change(entry);
        return entry;
    };
    const std::pair<json, std::string> wrong[] = {
        {with([](json& e) { e.erase("prompt"); }), "key 'prompt' not found"},
        {with([](json& e) { e["frames"].push_back("0.png"); }),
         "3 frames, 2 regions and a path of 2 places found"},
        {with([](json& e) { e["edit"]["regions"][1] = "small.png"; }),
         "frames and regions of 128×128 and 64×64 found"},
        {with([](json& e) {
             e["edit"]["path"][0] = {0.5, 0.5};
         }),
         "array index 2 is out of range"},
        {with([](json& e) { e["edit"]["path"][0][2] = 0; }), "size 0 found in its path"}};
    const auto expect_error = [&](const std::string& arguments, const std::string& message) {
        const auto result = run(arguments);
        EXPECT_EQ(result.code, 1) << arguments;
        EXPECT_THAT(result.err, HasSubstr(message));
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    };
    for (const auto& [entry, message] : wrong) {
        const std::string arguments = "bench edit" + cases(entry);
        expect_error(arguments, path("cases.json") + ", case 1");
        expect_error(arguments, message);
    }
    expect_error("bench lens" + cases(one()), "case 0 is a clip, expected pictures");
    expect_error("bench weight" + cases(one()), "case 0 is a clip, expected pictures");
    expect_error("bench edit --methods guess" + cases(one()),
                 "--methods guess found, expected of clips: round trip, edit, edit first+previous");
}

// The box changes nothing along its path.
TEST_F(BenchClips, AreMeasured) {
    const auto result =
        run(fmt::format(
                "bench edit --limit 1 --steps 2 --methods 'edit none,round trip' --precision fp32 "
                "--markdown {} --picture {}",
                path("clips.md"), path("clips.png")) +
            cases(one()));
    ASSERT_EQ(result.code, 0) << result.err;
    const std::string table = text("clips.md");
    EXPECT_THAT(table, HasSubstr("1 edits of clips of 2 frames of 128×128, 2 steps"));
    EXPECT_THAT(table, HasSubstr("| edit none | object | 1 | "));
    EXPECT_THAT(table, HasSubstr(" (0.00) | "));
    EXPECT_THAT(table, Not(HasSubstr(" 0.00 (0.00) | ")));
    EXPECT_THAT(table, HasSubstr("Inverted and drawn again with the source prompt: "));
    const Image sheet = load_image(path("clips.png"));
    EXPECT_EQ(sheet.width, 2 * 128 + 2);
    EXPECT_EQ(sheet.height, 2 * 128 + 2);
}

TEST_F(BenchClips, SegmentIsMeasuredOnPicturesAndMasks) {
    draw("mask.png", 40, 32, {1, 1, 1}, {0, 0, 0});
    const json pictures = {{{"picture", "0.png"},
                            {"kind", "known"},
                            {"objects", {{{"name", "apple"}, {"mask", "mask.png"}}}}},
                           {{"picture", "1.png"}, {"kind", "style"}, {"objects", json::array()}}};
    write("cases.json", {{"cases", pictures}});
    const auto result = run(fmt::format(
        "bench segment --everything 1 --grid 1 --precision fp32 --cases {} --json {} --markdown {}",
        path(""), path("s.json"), path("s.md")));
    ASSERT_EQ(result.code, 0) << result.err;
    std::map<std::string, json> found;
    const json measured = read("s.json");
    for (const json& line : measured.at("each")) found[line.at("prompt")] = line;
    for (const char* prompt : {"point", "point and a correction", "box"})
        EXPECT_GT(found.at(prompt).at("iou"), 0.8) << prompt;
    EXPECT_EQ(found.at("words").at("words"), "apple");
    EXPECT_EQ(found.at("words of another picture").at("picture"), "1.png");
    const std::string table = text("s.md");
    EXPECT_THAT(table, HasSubstr("| | known | style |\n"));
    EXPECT_THAT(table, HasSubstr("| pictures, objects | 1, 1 | 1, 0 |\n"));
    EXPECT_THAT(table, HasSubstr("| box, neither | "));
    EXPECT_THAT(table, HasSubstr("(100.0 %; 100.0 %) |  |\n"));
    EXPECT_THAT(table, HasSubstr("| everything: average recall | "));

    json wrong = pictures[0];
    wrong["objects"][0]["mask"] = "small.png";
    write("cases.json", {{"cases", {wrong}}});
    const auto refused = run("bench segment --cases " + path(""));
    EXPECT_EQ(refused.code, 1);
    EXPECT_THAT(refused.err, HasSubstr("a mask of 64×64 found, expected 128×128 as the picture"));
}

TEST_F(BenchCli, MethodsAtSizeAreComparedWithDense) {
    const auto result =
        run(fmt::format("bench methods --shapes small --precision fp32 --seconds 0.01 --densities "
                        "0.5 --markdown {}",
                        path("methods.md")));
    ASSERT_EQ(result.code, 0) << result.err;
    const std::string table = text("methods.md");
    for (const char* method : {"dense", "radial", "neighborhood", "reordered", "rectified"})
        EXPECT_THAT(table, HasSubstr(fmt::format("| small wan | {} |", method)));
}

}  // namespace
}  // namespace fovea
