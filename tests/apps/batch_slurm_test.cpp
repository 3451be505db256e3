#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/apps/program.h"
#include "vision/file.h"

namespace fovea {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// A real cluster of this machine alone, where Slurm is installed.
class BatchOnSlurm : public testing::Program {
  protected:
    ~BatchOnSlurm() override { cluster("stop"); }

    int cluster(const std::string& command) const {
        const std::string line = std::string(FOVEA_SOURCE_DIR) + "/tests/apps/slurm_cluster.sh " +
                                 command + " " + path("cluster") + " >" + path("cluster.txt") +
                                 " 2>&1";
        fs::create_directories(path("cluster"));
        return WEXITSTATUS(std::system(line.c_str()));
    }
    std::string output_of(const std::string& command) const {
        EXPECT_EQ(
            std::system((command + " >" + path("said.txt") + " 2>" + path("err.txt")).c_str()), 0)
            << command << ": " << text("err.txt");
        return text("said.txt");
    }
    size_t pictures(const std::string& folder) const {
        size_t count = 0;
        std::error_code error;
        for (const auto& entry : fs::directory_iterator(path(folder), error))
            count += entry.path().extension() == ".png";
        return count;
    }
    template <typename Condition>
    bool wait_until(Condition condition) const {
        for (int i = 0; i < 1000; ++i) {
            if (condition()) return true;
            std::this_thread::sleep_for(std::chrono::milliseconds(200));
        }
        return false;
    }
    /// A controller under load may not answer: it is asked again.
    bool wait_until_said(const std::string& command, const std::string& wanted) const {
        return wait_until([&] {
            const bool answered =
                std::system(
                    (command + " >" + path("said.txt") + " 2>" + path("err.txt")).c_str()) == 0;
            return answered && text("said.txt") == wanted;
        });
    }
};

TEST_F(BatchOnSlurm, TasksTakeGpusAndARequeuedOneGoesOn) {
    const int started = cluster("start");
    if (started == 77) GTEST_SKIP() << text("cluster.txt");
    ASSERT_EQ(started, 0) << text("cluster.txt");
    setenv("SLURM_CONF", (path("cluster") + "/slurm.conf").c_str(), 1);
    unsetenv("FOVEA_VALIDATION");
    constexpr size_t kJobs = 24;
    std::ofstream jobs(path("jobs.jsonl"));
    for (size_t i = 0; i < kJobs; ++i)
        jobs << R"({"type": "generate", "prompt": "a cat", "size": "128x128", "steps": 1, "seed": )"
             << i << "}\n";
    jobs.close();

    const std::string number =
        output_of(bare_program() + " batch " + path("jobs.jsonl") +
                  " --slurm 2 --devices '$SLURM_JOB_GPUS' --batch 1 -o " + path("out"));
    const std::string array = number.substr(0, number.find('\n')), task = array + "_0";
    ASSERT_TRUE(wait_until([&] { return pictures("out/shard-0") >= 2; })) << text("out/logs/0.txt");
    // The node's one GPU is the first task's, so that the other waits.
    ASSERT_TRUE(wait_until_said("squeue -h -r -j " + array + " -o '%K %T %b'",
                                "1 PENDING gres:gpu:1\n0 RUNNING gres:gpu:1\n"))
        << text("said.txt") << text("err.txt");
    // Slurm lets a requeued task wait for two minutes; asking twice does no more than asking once.
    ASSERT_TRUE(wait_until_said(
        "(scontrol requeue " + task + " || true) && squeue -h -j " + task + " -o %T", "PENDING\n"))
        << text("said.txt") << text("err.txt");
    const size_t before = pictures("out/shard-0");
    ASSERT_TRUE(wait_until_said("scontrol update JobId=" + task + " StartTime=now", ""))
        << text("err.txt");
    ASSERT_TRUE(wait_until_said("squeue -h", "")) << text("said.txt") << text("err.txt");

    const auto status =
        Json::parse(output_of(bare_program() + " batch --status -o " + path("out")));
    EXPECT_EQ(status["done"], kJobs) << text("out/logs/0.txt") << text("out/logs/1.txt");
    EXPECT_EQ(status["shards"], 2);
    EXPECT_LT(before, pictures("out/shard-0")) << "it had ended before";
    std::istringstream results(text("out/results.jsonl"));
    size_t count = 0;
    for (std::string line; std::getline(results, line); ++count) {
        const auto job = Json::parse(line);
        EXPECT_EQ(sha256_of_file(path("out/" + job["file"].get<std::string>())), job["sha256"]);
    }
    EXPECT_EQ(count, kJobs);
}

}  // namespace
}  // namespace fovea
