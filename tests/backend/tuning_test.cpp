#include "backend/ops/tuning.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "backend/error.h"
#include "backend/ops/attention_kernel.h"
#include "backend/ops/matrix_tile.h"
#include "tests/backend/ops_testing.h"

/// Tiles by timing: files, what ops take of them, what they offer to be timed, and a run of it.
namespace fovea {
namespace {

namespace fs = std::filesystem;
using testing::device;
using testing::Environment;

std::string text_of(const fs::path& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

/// With a cache folder of its own: nothing of another test, or of the user, is stored there.
class Tuning : public ::testing::Test {
  protected:
    Tuning()
        : folder_(fs::temp_directory_path() /
                  fmt::format("fovea_tuning_{}_{}", ::getpid(), ++number_)),
          cache_("XDG_CACHE_HOME", folder_.c_str()),
          mode_("FOVEA_TUNE", "") {
        fs::create_directories(folder_ / "fovea");
    }
    ~Tuning() override { fs::remove_all(folder_); }

    static void store(const vk::DeviceInfo& device, const std::string& shape_class,
                      const std::string& tile) {
        std::ofstream(tuning_file(device))
            << to_json({{shape_class, {tile, 1, 2}}}, device.name, device.driver);
    }

  private:
    static inline int number_ = 0;
    const fs::path folder_;
    const Environment cache_, mode_;
};

vk::DeviceInfo gpu() {
    vk::DeviceInfo device;
    device.name = "a GPU";
    device.driver = "driver 1";
    device.type = vk::DeviceType::discrete;
    device.limits.shared_memory = 48 << 10;
    device.limits.subgroup_size = 32;
    device.limits.workgroup_invocations = 1024;
    device.fp16_storage = true;
    device.fp16_matrices = {{16, 16, 16}};
    device.scalar.ok = device.khr.ok = device.nv2.ok = true;
    return device;
}

AttentionProblem problem(uint32_t tokens, uint32_t head_dim, uint32_t heads = 24) {
    return self_attention_problem(heads, tokens, head_dim, DType::f16);
}

/// The fastest path built that has tiles to choose from.
AttentionPath matrix_path() {
    for (const auto& [path, support] : attention_paths(gpu()))
        if (support.ok) return path;
    return AttentionPath::scalar;
}

std::string chosen(const vk::DeviceInfo& device, const AttentionProblem& p,
                   TileShape granularity = {0, 0}) {
    return to_string(choose_attention(device, p, granularity, matrix_path()).tile);
}

TEST_F(Tuning, FilesComeBackAsWritten) {
    const TunedTiles tiles{{"gemm m 1 n 2 k 3", {"32x32x64:2x2:1x1", 0.5, 0.75}},
                           {"attention", {"8x64x1x2", 1, 1}}};
    const std::string text = to_json(tiles, "a GPU", "driver 1");
    for (const char* driver : {"driver 1", ""}) {
        const auto found = parse_tuned_tiles(text, "a GPU", driver);
        ASSERT_TRUE(found);
        ASSERT_EQ(found->size(), 2u);
        EXPECT_EQ(found->at("gemm m 1 n 2 k 3").tile, "32x32x64:2x2:1x1");
        EXPECT_EQ(found->at("gemm m 1 n 2 k 3").ms, 0.5);
        EXPECT_EQ(found->at("gemm m 1 n 2 k 3").rule_ms, 0.75);
    }
    EXPECT_FALSE(parse_tuned_tiles(text, "a GPU", "driver 2"));
    EXPECT_FALSE(parse_tuned_tiles(text, "another", "driver 1"));
    for (size_t length = 0; length + 2 < text.size(); length += 7)
        EXPECT_FALSE(parse_tuned_tiles(text.substr(0, length), "a GPU", "driver 1")) << length;
}

TEST_F(Tuning, DamagedFilesAreNone) {
    const std::string head = R"({"format": 1, "device": "a GPU", "driver": "d", "tiles": )";
    ASSERT_TRUE(parse_tuned_tiles(head + "{}}", "a GPU", "d"));
    ASSERT_TRUE(parse_tuned_tiles(head + R"({"c": {"tile": "8x64x1", "ms": 1, "rule_ms": 2.5}}})",
                                  "a GPU", "d"));
    for (const char* tiles :
         {"[]", "null", "1", R"({"c": 1})", R"({"c": {}})", R"({"c": {"tile": "8x64x1"}})",
          R"({"c": {"tile": 1, "ms": 1, "rule_ms": 1}})",
          R"({"c": {"tile": "8x64x1", "ms": "1", "rule_ms": 1}})",
          R"({"c": {"tile": "8x64x1", "ms": 1, "rule_ms": null}})"})
        EXPECT_FALSE(parse_tuned_tiles(fmt::format("{}{}}}", head, tiles), "a GPU", "d")) << tiles;
    for (const char* text : {"", "{}", "[]", "\xff\xfe", "{\"format\": 1}",
                             R"({"format": 2, "device": "a GPU", "driver": "d", "tiles": {}})"})
        EXPECT_FALSE(parse_tuned_tiles(text, "a GPU", "d")) << text;
}

TEST_F(Tuning, ModesAreWords) {
    EXPECT_EQ(tuning_mode(), TuningMode::stored);
    for (const auto& [word, mode] : {std::pair("off", TuningMode::off),
                                     {"on", TuningMode::on},
                                     {"stored", TuningMode::stored}}) {
        const Environment set("FOVEA_TUNE", word);
        EXPECT_EQ(tuning_mode(), mode);
    }
    const Environment set("FOVEA_TUNE", "yes");
    EXPECT_THROW(tuning_mode(), Error);
}

TEST_F(Tuning, AttentionTakesWhatIsStored) {
    if (matrix_path() == AttentionPath::scalar) GTEST_SKIP() << "no matrix path is built";
    const auto candidates = attention_tiles(gpu(), problem(4096, 128), {0, 0}, matrix_path());
    ASSERT_GT(candidates.tiles.size(), 3u);
    const std::string rule = candidates.tiles[0], other = candidates.tiles.back();
    ASSERT_NE(rule, other);
    store(gpu(), candidates.shape_class, other);
    EXPECT_EQ(chosen(gpu(), problem(4096, 128)), other);
    EXPECT_EQ(chosen(gpu(), problem(4100, 128)), other) << "of the same class";
    EXPECT_NE(chosen(gpu(), problem(4096, 64)), other) << "of another class";
    {
        const Environment off("FOVEA_TUNE", "off");
        EXPECT_EQ(chosen(gpu(), problem(4096, 128)), rule);
    }
    const Environment forced("FOVEA_TILE", "4x32x1");
    EXPECT_EQ(chosen(gpu(), problem(4096, 128)), "4x32x1");
    EXPECT_TRUE(attention_tiles(gpu(), problem(4096, 128), {0, 0}, matrix_path()).tiles.empty());
}

TEST_F(Tuning, WhatDoesNotFitIsIgnored) {
    if (matrix_path() == AttentionPath::scalar) GTEST_SKIP() << "no matrix path is built";
    const auto candidates = attention_tiles(gpu(), problem(4096, 128), {0, 0}, matrix_path());
    int number = 0;
    for (const char* tile : {"", "8x64", "8x64x1x3", "0x64x1", "8x24x1", "64x64x1", "8x1024x1",
                             "8x64x1 ", "99999999999x64x1", "128x256x32:2x4:1x1"}) {
        vk::DeviceInfo device = gpu();
        device.driver = fmt::format("driver {}", ++number);  // a file is read once
        store(device, candidates.shape_class, tile);
        EXPECT_EQ(chosen(device, problem(4096, 128)), candidates.tiles[0]) << tile;
    }
    vk::DeviceInfo device = gpu();
    device.driver = "another";
    std::ofstream(tuning_file(device)) << "{\"format\": 1, \"dev";
    EXPECT_EQ(chosen(device, problem(4096, 128)), candidates.tiles[0]);
}

TEST_F(Tuning, CandidatesOfAttentionFit) {
    if (matrix_path() == AttentionPath::scalar) GTEST_SKIP() << "no matrix path is built";
    vk::DeviceInfo small = gpu();
    small.limits.shared_memory = 32 << 10;
    small.limits.workgroup_invocations = 128;
    size_t most = 0;
    for (const vk::DeviceInfo& device : {gpu(), small})
        for (const AttentionPath path : {AttentionPath::khr, AttentionPath::nv2}) {
            if (!supports(path, device, DType::f16).ok) continue;
            for (const uint32_t tokens : {16u, 200u, 4096u})
                for (const uint32_t head_dim : {64u, 128u, 256u})
                    for (const uint32_t side : {0u, 64u, 128u}) {
                        const AttentionProblem p = problem(tokens, head_dim);
                        const auto found = attention_tiles(device, p, {side, side}, path);
                        ASSERT_FALSE(found.tiles.empty());
                        most = std::max(most, found.tiles.size());
                        EXPECT_EQ(std::set(found.tiles.begin(), found.tiles.end()).size(),
                                  found.tiles.size());
                        for (const std::string& tile : found.tiles) {
                            SCOPED_TRACE(fmt::format("{} {} {} {}", tile, tokens, head_dim, side));
                            vk::DeviceInfo own = device;
                            own.driver = fmt::format("{} {} {}", tile, found.shape_class,
                                                     device.limits.shared_memory);
                            store(own, found.shape_class, tile);
                            const auto c = choose_attention(own, p, {side, side}, path);
                            EXPECT_EQ(to_string(c.tile), tile);
                            EXPECT_LE(c.tile.subgroups * c.lanes,
                                      device.limits.workgroup_invocations);
                            if (tile == found.tiles[0]) continue;
                            EXPECT_TRUE(c.tile.subgroups == 1 || c.block().q < 2 * tokens);
                            if (side > 0) {
                                EXPECT_EQ(side % c.block().q, 0u);
                                EXPECT_EQ(side % c.block().k, 0u);
                            }
                        }
                    }
        }
    EXPECT_GE(most, 8u);
    EXPECT_TRUE(
        attention_tiles(gpu(), problem(64, 64), {0, 0}, AttentionPath::scalar).tiles.empty());
}

TEST_F(Tuning, ProductsTakeWhatIsStored) {
    const auto tile = [](int64_t m, std::string_view op = "gemm") {
        return to_string(choose_matrix_tile(gpu(), m, 1024, 1024, op));
    };
    const auto candidates = matrix_tile_candidates(gpu(), 4096, 1024, 1024);
    ASSERT_GT(candidates.tiles.size(), 3u);
    const std::string rule = candidates.tiles[0], other = candidates.tiles[3];
    store(gpu(), candidates.shape_class, other);
    EXPECT_EQ(tile(4096), other);
    EXPECT_EQ(tile(6143), other) << "of the same class";
    EXPECT_EQ(tile(4096, "conv2d"), rule);
    EXPECT_NE(matrix_tile_candidates(gpu(), 6144, 1024, 1024).shape_class, candidates.shape_class);
    {
        const Environment off("FOVEA_TUNE", "off");
        EXPECT_EQ(tile(4096), rule);
    }
    vk::DeviceInfo device = gpu();
    device.driver = "driver 2";
    store(device, candidates.shape_class, "4096x4096x32:2x4:1x1");
    EXPECT_EQ(to_string(choose_matrix_tile(device, 4096, 1024, 1024)), rule);
    const Environment forced("FOVEA_GEMM_TILE", "32x32x64:2x2:1x1");
    EXPECT_EQ(tile(4096), "32x32x64:2x2:1x1");
    EXPECT_TRUE(matrix_tile_candidates(gpu(), 4096, 1024, 1024).tiles.empty());
}

TEST_F(Tuning, TablesOfTheTreeAreRead) {
    int tables = 0;
    for (const auto& entry :
         fs::directory_iterator(fs::path(FOVEA_SOURCE_DIR) / "assets" / "tuning")) {
        const std::string text = text_of(entry.path());
        vk::DeviceInfo device = gpu();
        device.name = nlohmann::json::parse(text).at("device");
        const auto tiles = parse_tuned_tiles(text, device.name, "");
        ASSERT_TRUE(tiles) << entry.path();
        for (const auto& [shape_class, tile] : *tiles)
            EXPECT_EQ(tuned_tile(device, [&] { return shape_class; }), tile.tile) << entry.path();
        ++tables;
    }
    EXPECT_GE(tables, 1);
}

/// A run on whatever device is here, emulated where it has no matrix units: few tiles fit so few
/// queries.
class TuningRuns : public Tuning {
  protected:
    void SetUp() override {
        if (!supports(AttentionPath::khr, device().info(), DType::f16).ok)
            GTEST_SKIP() << "khr does not run here";
    }
    Tensor attend() {
        return attention(stream_, q_.device, q_.device, q_.device, dense(),
                         {.path = AttentionPath::khr});
    }
    TileCandidates candidates() const {
        AttentionProblem p = problem(16, 16, 1);
        return attention_tiles(device().info(), p, {0, 0}, AttentionPath::khr);
    }
    std::string chosen_here() const { return to_string(choose().tile); }
    static AttentionChoice choose() {
        return choose_attention(device().info(), problem(16, 16, 1), {0, 0}, AttentionPath::khr);
    }

    const Environment emulate_{"FOVEA_EMULATE_MATRICES", "1"};
    vk::Stream stream_{device()};
    testing::Input q_ = testing::input(stream_, {1, 1, 16, 16}, 1, DType::f16);
};

TEST_F(TuningRuns, WritesAFileThatIsUsed) {
    const std::string rule = chosen_here();
    const fs::path file = tuning_file(device().info());
    const auto expected = to_host(stream_, attend());
    ASSERT_FALSE(fs::exists(file)) << "stored without being asked";
    std::vector<int> steps;
    {
        TuningRun run([&](int done, int) { steps.push_back(done); });
        EXPECT_TRUE(
            testing::close(to_host(stream_, attend()), expected, testing::tolerance(DType::f16)));
        attend();
        ASSERT_EQ(run.results().size(), 1u) << "a class is timed once";
        const TuningResult& result = run.results()[0];
        EXPECT_EQ(result.shape_class, candidates().shape_class);
        EXPECT_EQ(result.rule, rule);
        EXPECT_EQ(result.candidates, candidates().tiles.size());
        EXPECT_GE(result.candidates, 2u);
        EXPECT_GT(result.best.ms, 0);
        EXPECT_LE(result.best.ms, result.best.rule_ms);
        EXPECT_EQ(chosen_here(), result.best.tile);
    }
    EXPECT_GT(steps.size(), 3u);
    const auto stored =
        parse_tuned_tiles(text_of(file), device().info().name, device().info().driver);
    ASSERT_TRUE(stored);
    ASSERT_EQ(stored->size(), 1u);
    EXPECT_EQ(stored->begin()->first, candidates().shape_class);
    EXPECT_EQ(stored->begin()->second.tile, chosen_here());
    const Environment off("FOVEA_TUNE", "off");
    EXPECT_EQ(chosen_here(), rule);
}

TEST_F(TuningRuns, FirstUseIsTimedOnRequestAlone) {
    const fs::path file = tuning_file(device().info());
    for (const char* mode : {"off", "stored"}) {
        const Environment set("FOVEA_TUNE", mode);
        attend();
        stream_.wait();
        EXPECT_FALSE(fs::exists(file)) << mode;
    }
    const Environment set("FOVEA_TUNE", "on");
    attend();
    stream_.wait();
    const std::string text = text_of(file);
    const auto stored = parse_tuned_tiles(text, device().info().name, device().info().driver);
    ASSERT_TRUE(stored);
    EXPECT_EQ(stored->begin()->second.tile, chosen_here());
    fs::remove(file);
    attend();
    stream_.wait();
    EXPECT_FALSE(fs::exists(file)) << "timed again";
}

TEST_F(TuningRuns, InterruptionLeavesNothing) {
    {
        TuningRun run([](int done, int) {
            if (done == 2) fail("interrupted");
        });
        EXPECT_THROW(attend(), Error);
        EXPECT_TRUE(run.results().empty());
        EXPECT_THROW(TuningRun(), Error) << "one at a time";
    }
    EXPECT_FALSE(fs::exists(tuning_file(device().info())));
    EXPECT_EQ(chosen_here(), candidates().tiles[0]);
}

}  // namespace
}  // namespace fovea
