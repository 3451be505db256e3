#include <gmock/gmock.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "tests/apps/program.h"
#include "vision/file.h"
#include "vision/image.h"

namespace fovea {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr auto kPause = std::chrono::milliseconds(20);

// Of a picture at once, for tests that need many.
constexpr const char* kTiny =
    R"({"defaults": {"type": "generate", "size": "128x128", "steps": 1, "cfg": 1}})";

class Batch : public testing::Program {
  protected:
    // A line a job of the same file.
    static std::string seeds(int count) {
        std::string list;
        for (int i = 0; i < count; ++i) list += (i ? "," : "") + std::to_string(i);
        return std::string(kTiny) + "\n" +
               R"({"prompt": "a red apple on a blue background", "grid": {"seed": [)" + list +
               "]}}\n";
    }
    std::vector<Json> results(const std::string& folder) const {
        return lines(text(folder + "/results.jsonl"));
    }
    // What the ledger says is done: file → time of change, bytes.
    using Done = std::map<std::string, std::pair<fs::file_time_type, uintmax_t>>;
    Done recorded(const std::string& folder) const {
        EXPECT_EQ(run("batch --status -o " + path(folder)).code, 0);
        Done done;
        for (const auto& job : results(folder)) {
            if (job["state"] != "done") continue;
            const std::string file = path(folder) + "/" + job["file"].get<std::string>();
            EXPECT_TRUE(fs::exists(file)) << job;
            done[file] = {fs::last_write_time(file), fs::file_size(file)};
        }
        return done;
    }
    pid_t start(const std::string& arguments) const {
        const pid_t child = fork();
        if (child == 0) {
            const std::string command = std::string("exec ") + FOVEA_PROGRAM + " " + arguments +
                                        " >" + path("child.txt") + " 2>&1 </dev/null";
            execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
            _exit(127);
        }
        return child;
    }
    static int wait_for(pid_t child) {
        int status = 0;
        waitpid(child, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    size_t pictures() const {
        size_t found = 0;
        std::error_code error;
        for (const auto& entry : fs::directory_iterator(path("out"), error))
            found += entry.path().extension() == ".png";
        return found;
    }
    // Until the process has written the next picture, for thirty seconds at most.
    void wait_for_picture_after(size_t before) const {
        for (int wait = 0; wait < 3000 && pictures() == before; ++wait)
            std::this_thread::sleep_for(kPause / 2);
    }
    // Every job done, every file there with its hash, nothing else.
    void expect_complete(const std::string& folder, size_t count) const {
        std::set<std::string> files;
        const auto all = results(folder);
        EXPECT_EQ(all.size(), count);
        for (const auto& one : all) {
            EXPECT_EQ(one["state"], "done") << one;
            files.insert(one["file"]);
            EXPECT_EQ(sha256_of_file(path(folder) + "/" + one["file"].get<std::string>()),
                      one["sha256"]);
        }
        EXPECT_EQ(files.size(), count);
        for (const auto& entry : fs::directory_iterator(path(folder))) {
            const std::string name = entry.path().filename();
            EXPECT_TRUE(files.contains(name) || name == "results.jsonl" || name == ".batch")
                << name;
        }
        for (const auto& entry : fs::directory_iterator(path(folder + "/.batch")))
            EXPECT_FALSE(entry.is_directory()) << entry.path() << ": of a process that has ended";
    }
};

TEST_F(Batch, PicturesAreThoseOfSingleRuns) {
    const auto jobs = write("jobs.jsonl", std::string(kTiny) + R"(
{"prompt": "a red apple", "seed": 1, "id": "a"}
{"prompt": "a cat", "seed": 2, "id": "b"}
{"prompt": "a cat left of a dog", "seed": 3, "steps": 2, "id": "c"}
{"type": "lens", "prompt": "a rocket", "id": "d"}
)");
    ASSERT_EQ(run("batch " + jobs + " --batch 4 -o " + path("out")).code, 0);
    expect_complete("out", 4);
    const auto all = results("out");
    EXPECT_EQ(all[0]["batch"], 2);
    EXPECT_EQ(all[2]["batch"], 1);
    EXPECT_EQ(all[0]["settings"]["prompt"], "a red apple");
    const std::string tiny = " --size 128x128 --cfg 1 -o " + path("single.png");
    const std::string prompts[] = {
        "generate 'a red apple' --seed 1 --steps 1", "generate 'a cat' --seed 2 --steps 1",
        "generate 'a cat left of a dog' --seed 3 --steps 2", "lens 'a rocket' --steps 1"};
    for (size_t i = 0; i < 4; ++i) {
        ASSERT_EQ(run(prompts[i] + tiny).code, 0);
        EXPECT_EQ(text("single.png"), text("out/" + all[i]["file"].get<std::string>())) << i;
    }
}

TEST_F(Batch, OneBadJobDoesNotStopTheOthersAndIsTriedAgain) {
    // Only the device's work shows that there is no block 99.
    const auto jobs = write("jobs.jsonl", std::string(kTiny) + R"(
{"prompt": "a red apple", "id": "a"}
{"prompt": "a cat", "guidance": "pag:2@blocks=99", "cfg": null, "id": "b"}
{"prompt": "an owl", "id": "c"}
{"prompt": "an owl", "model": "/no/such/model", "id": "d"}
)");
    const std::string command = "batch " + jobs + " --devices 0,0 --tries 2 -o " + path("out");
    for (int i = 1; i <= 3; ++i) {
        EXPECT_EQ(run(command).code, 3);
        const auto all = results("out");
        EXPECT_EQ(all[0]["state"], "done");
        EXPECT_EQ(all[1]["state"], "failed");
        EXPECT_EQ(all[1]["tries"], std::min(i, 2));
        EXPECT_THAT(all[1]["error"].get<std::string>(), HasSubstr("block 99"));
        EXPECT_EQ(all[2]["state"], "done");
        EXPECT_EQ(all[2]["tries"], 1);
        EXPECT_EQ(all[3]["state"], "failed");
        EXPECT_THAT(all[3]["error"].get<std::string>(), HasSubstr("/no/such/model"));
    }
}

TEST_F(Batch, GoesOnAndMakesAgainWhatIsMissingOrChanged) {
    const auto jobs = write("jobs.jsonl", seeds(4));
    const std::string command = "batch " + jobs + " -o " + path("out") + " --name {seed}";
    ASSERT_EQ(run(command).code, 0);
    expect_complete("out", 4);
    const auto before = results("out");
    fs::remove(path("out/1.png"));
    std::ofstream(path("out/2.png"), std::ios::app) << "x";
    const auto kept = fs::last_write_time(path("out/0.png"));
    const auto result = run(command);
    EXPECT_EQ(result.code, 0);
    EXPECT_THAT(result.err, HasSubstr("2 file(s)"));
    expect_complete("out", 4);
    EXPECT_EQ(fs::last_write_time(path("out/0.png")), kept);
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(results("out")[i]["sha256"], before[i]["sha256"]);
    // More jobs go into the same folder; an id is one job for good.
    const auto more = write("more.jsonl", seeds(5));
    EXPECT_EQ(run("batch " + more + " -o " + path("out") + " --name {seed}").code, 0);
    expect_complete("out", 5);
    const std::string id = before[0]["id"];
    write("b.jsonl", R"({"type": "generate", "prompt": "a dog", "id": ")" + id + "\"}");
    const auto other = run("batch " + path("b.jsonl") + " -o " + path("out"));
    EXPECT_EQ(other.code, 1);
    EXPECT_THAT(other.err, HasSubstr("the id " + id + " was another job"));
}

TEST_F(Batch, AStatusFreesNothingAndADeadProcessIsNoTry) {
    const auto jobs = write("jobs.jsonl", std::string(kTiny) + R"(
{"prompt": "a red apple", "steps": 1000, "id": "a"}
)");
    const std::string command = "batch " + jobs + " --tries 1 --deaths 2 -o " + path("out");
    const auto running = [&](int tries) {
        const auto status = run("batch --status -o " + path("out"));
        return status.code == 0 && Json::parse(status.out)["running"] == 1 &&
               results("out")[0]["tries"] == tries;
    };
    for (int death = 1; death <= 2; ++death) {
        const pid_t child = start(command);
        for (int wait = 0; wait < 1000 && !running(death); ++wait)
            std::this_thread::sleep_for(kPause);
        kill(child, SIGKILL);
        EXPECT_EQ(wait_for(child), 128 + SIGKILL);
        EXPECT_TRUE(running(death));
    }
    EXPECT_EQ(run(command).code, 1);
    EXPECT_EQ(results("out")[0]["state"], "failed");
    EXPECT_THAT(results("out")[0].value("error", ""), HasSubstr("its process died"));
}

TEST_F(Batch, OfAnArrayOnlyTheSameNumberOfTasksGoesOn) {
    const auto jobs = write("jobs.jsonl", seeds(2));
    write("sbatch", "#!/bin/sh\necho 7\n");
    fs::permissions(path("sbatch"), fs::perms::owner_all);
    const std::string before = std::getenv("PATH");
    setenv("PATH", (folder_.string() + ":" + before).c_str(), 1);
    const std::string command = "batch " + jobs + " --claim-timeout 30 -o " + path("out");
    const auto first = run(command + " --no-tune --slurm 2");
    const auto same = run(command + " --slurm 2"), other = run(command + " --slurm 3");
    const auto metrics = run(command + " --slurm 2 --metrics " + path("fovea.prom"));
    setenv("PATH", before.c_str(), 1);
    EXPECT_EQ(first.code, 0) << first.err;
    EXPECT_EQ(same.out, "7\n");
    const auto status = Json::parse(run("batch --status -o " + path("out")).out);
    EXPECT_EQ(status["pending"], 2) << "of tasks that have not begun";
    EXPECT_EQ(status["tasks"], 2);
    EXPECT_THAT(text("out/slurm.sh"), HasSubstr("'--claim-timeout' '30'"));
    EXPECT_EQ(other.code, 1);
    EXPECT_THAT(other.err, HasSubstr("begun with --slurm 2"));
    EXPECT_EQ(metrics.code, 1);
}

// Several times: they may meet while the ledger is made.
TEST_F(Batch, TwoProcessesShareAFolder) {
    const auto jobs = write("jobs.jsonl", seeds(6));
    for (const char* folder : {"out", "second", "third"}) {
        const std::string command = "batch " + jobs + " --batch 1 -o " + path(folder);
        const pid_t one = start(command);
        const auto two = run(command);
        EXPECT_EQ(wait_for(one), 0);
        EXPECT_EQ(two.code, 0) << two.err;
        expect_complete(folder, 6);
        for (const auto& job : results(folder)) EXPECT_EQ(job["tries"], 1);
    }
}

TEST_F(Batch, SignalsFinishWhatIsInFlight) {
    const auto jobs = write("jobs.jsonl", seeds(400));
    const std::string command = "batch " + jobs + " --batch 2 -o " + path("out");
    const pid_t child = start(command);
    wait_for_picture_after(0);
    kill(child, SIGTERM);
    EXPECT_EQ(wait_for(child), 130);
    int done = 0;
    for (const auto& job : results("out")) {
        EXPECT_TRUE(job["state"] == "done" || job["state"] == "pending") << job;
        done += job["state"] == "done";
    }
    EXPECT_GT(done, 0);
    EXPECT_LT(done, 400);

    const pid_t hurried = start(command);
    wait_for_picture_after(pictures());
    kill(hurried, SIGTERM);
    kill(hurried, SIGTERM);  // at once: the same one
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    kill(hurried, SIGTERM);
    EXPECT_EQ(wait_for(hurried), 128 + SIGTERM);
    recorded("out");  // every file that is said to be done is there
}

TEST_F(Batch, AHungProcessLosesItsClaimsAndKeepsNothingTwice) {
    const auto jobs = write("jobs.jsonl", seeds(8));
    const std::string command = "batch " + jobs + " --batch 2 --claim-timeout 3 -o " + path("out");
    const pid_t hung = start(command);
    while (!fs::exists(path("out/.batch/ledger.db"))) std::this_thread::sleep_for(kPause);
    const auto running = [&] {
        return lines(run("batch --status -o " + path("out")).out).at(0)["running"].get<int>();
    };
    while (running() == 0) std::this_thread::sleep_for(kPause);
    kill(hung, SIGSTOP);
    const auto other = run(command);
    EXPECT_EQ(other.code, 0) << other.err;
    kill(hung, SIGCONT);
    EXPECT_EQ(wait_for(hung), 0) << text("child.txt");
    expect_complete("out", 8);
    const auto all = results("out");
    EXPECT_TRUE(
        std::any_of(all.begin(), all.end(), [](const Json& job) { return job["tries"] == 2; }));
}

TEST_F(Batch, LessMemoryMakesTheBatchSmallerThenFailsTheJob) {
    const auto jobs = write("jobs.jsonl", std::string(kTiny) + R"(
{"prompt": "a red apple", "size": "128x128", "grid": {"seed": [1,2,3,4,5,6,7,8]}, "id": "small"}
{"prompt": "a red apple", "size": "384x384", "id": "large"}
)");
    setenv("FOVEA_MEMORY", "94", 1);
    const auto result = run("batch " + jobs + " --batch 8 -o " + path("out"));
    unsetenv("FOVEA_MEMORY");
    EXPECT_EQ(result.code, 3) << result.err;
    EXPECT_THAT(result.err, HasSubstr("pictures together from here on"));
    for (const auto& job : results("out"))
        if (job["id"] == "large") {
            EXPECT_THAT(job.value("error", ""), HasSubstr("out of memory")) << job;
        } else {
            EXPECT_LT(job.value("batch", 99), 8) << job;
        }
}

// Without the validation layers: their wrapper hides other ones.
TEST_F(Batch, ALostDeviceIsOpenedOnceMoreThenGivenUp) {
    const auto jobs = write("jobs.jsonl", seeds(4));
    const auto losing = [&](const std::string& at, const std::string& folder) {
        const std::string setting =
            "env -u FOVEA_VALIDATION -u VK_LAYER_PATH VK_INSTANCE_LAYERS=VK_LAYER_FOVEA_lost_device"
            " VK_ADD_LAYER_PATH=" +
            std::string(FOVEA_TEST_LAYERS) + " FOVEA_LOSE_AT=" + at + " ";
        return run("batch " + jobs + " --batch 1 -o " + path(folder), setting + bare_program());
    };
    const auto once = losing("20", "once");
    EXPECT_EQ(once.code, 0) << once.err;
    EXPECT_THAT(once.err, HasSubstr("the device was lost"));
    EXPECT_THAT(once.err, HasSubstr("opening it again"));
    expect_complete("once", 4);

    const auto twice = losing("20,2", "twice");
    EXPECT_EQ(twice.code, 4) << twice.err;
    EXPECT_THAT(twice.err, HasSubstr("opened again and lost again"));
    const auto rest = run("batch " + jobs + " -o " + path("twice"));
    EXPECT_EQ(rest.code, 0) << rest.err;
    expect_complete("twice", 4);
}

TEST_F(Batch, AFullDiskStopsItAndItGoesOn) {
    fs::create_directories(path("disk"));
    const std::string mount = "mount -t tmpfs -o size=1500k none " + path("disk") + " 2>/dev/null";
    if (std::system(mount.c_str()) != 0) GTEST_SKIP() << "a tmpfs cannot be mounted here";
    const auto jobs = write("jobs.jsonl", seeds(6));
    const std::string command = "batch " + jobs + " -o " + path("disk/out");
    std::ofstream(path("disk/filler")) << std::string(1'180'000, 'x');
    const auto full = run(command);
    EXPECT_EQ(full.code, 4) << full.err;
    EXPECT_THAT(full.err, HasSubstr("Stopped"));
    EXPECT_THAT(full.err, HasSubstr(" of 6 done")) << "at the start, not on the way";
    fs::remove(path("disk/filler"));
    const auto rest = run(command);
    EXPECT_EQ(rest.code, 0) << rest.err;
    expect_complete("disk/out", 6);
    for (const auto& job : results("disk/out")) EXPECT_EQ(job["tries"], 1) << job;
    ASSERT_EQ(std::system(("mount -o remount,ro " + path("disk")).c_str()), 0);
    const auto read_only =
        run("batch " + write("more.jsonl", seeds(7)) + " -o " + path("disk/out"));
    EXPECT_EQ(read_only.code, 4) << read_only.err;
    EXPECT_THAT(read_only.err, HasSubstr("Read-only file system"));
    EXPECT_EQ(std::count(read_only.err.begin(), read_only.err.end(), '\n'), 1) << read_only.err;
    EXPECT_EQ(std::system(("umount " + path("disk")).c_str()), 0);
}

TEST_F(Batch, ANameThatIsTakenByAFolderFailsThatJobAlone) {
    const auto jobs = write("jobs.jsonl", seeds(4));
    fs::create_directories(path("out/1.png"));
    const std::string command = "batch " + jobs + " -o " + path("out") + " --name {seed}";
    EXPECT_EQ(run(command).code, 3);
    const auto all = results("out");
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(all[i]["state"], i == 1 ? "failed" : "done") << all[i];
    EXPECT_THAT(all[1].value("error", ""), HasSubstr("directory"));
    fs::remove(path("out/1.png"));
    EXPECT_EQ(run(command).code, 0);
    expect_complete("out", 4);
}

TEST_F(Batch, NeitherALostTerminalNorMetricsEndIt) {
    const auto jobs = write("jobs.jsonl", seeds(2));
    fs::create_directories(path("folder.prom"));
    for (const char* errors : {"2>&-", "2>/dev/full"}) {
        const std::string command = bare_program() + " batch --devices 0 " + jobs + " --metrics " +
                                    path("folder.prom") + " -o " + path("out") + " " + errors;
        EXPECT_EQ(std::system(command.c_str()), 0) << errors;
        expect_complete("out", 2);
        fs::remove_all(path("out"));
    }
}

TEST_F(Batch, ProgressAndMetricsForPrograms) {
    const auto jobs = write("jobs.jsonl", std::string(kTiny) + R"(
{"prompt": "a red zorgle", "grid": {"seed": [1, 2]}}
)");
    const auto result = run("batch " + jobs + " --progress json --metrics " + path("fovea.prom") +
                            " --workers 2 --batch 1 -o " + path("out"));
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(lines(result.out).back()["done"], 2);
    EXPECT_THAT(text("fovea.prom"), HasSubstr("fovea_batch_jobs{state=\"done\"} 2\n"));
    EXPECT_THAT(text("fovea.prom"), HasSubstr("fovea_batch_seconds_left 0\n"));
    const std::string name = "\nfovea_batch_busy_ratio ", metrics = text("fovea.prom");
    const double busy = std::stod(metrics.substr(metrics.find(name) + name.size()));
    EXPECT_GT(busy, 0);
    EXPECT_LE(busy, 1);
    const size_t at = result.err.find("does not know \"zorgle\"");
    EXPECT_NE(at, std::string::npos) << result.err;
    EXPECT_EQ(result.err.find("zorgle", at + 30), std::string::npos) << "said once\n" << result.err;
}

// FOVEA_KILLS: how many; scripts/batch_kill_test.sh asks for 200. One of four in start-up, the
// others up to a second after the first file.
TEST_F(Batch, KilledAtAnyMomentItLosesNothingAndRepeatsNothing) {
    const char* asked = std::getenv("FOVEA_KILLS");
    const int kills = asked ? std::atoi(asked) : 3;
    const size_t count = kills < 20 ? 20 : 400;
    const auto jobs = write("jobs.jsonl", seeds(static_cast<int>(count)));
    const std::string command = "batch " + jobs + " --batch 2 -o " + path("out");
    const auto stamp = std::random_device{}();
    std::mt19937 random(stamp);
    SCOPED_TRACE("seed " + std::to_string(stamp));
    const auto sleep_up_to = [&](double seconds) {
        std::this_thread::sleep_for(std::chrono::duration<double>(
            std::uniform_real_distribution<double>(0.005, seconds)(random)));
    };
    Done done;
    int hit = 0;
    for (int i = 0; i < kills; ++i) {
        const size_t before = pictures();
        const pid_t child = start(command);
        if (i % 4 != 0) wait_for_picture_after(before);
        sleep_up_to(i % 4 == 0 ? 1.5 : 0.4);
        kill(child, SIGKILL);
        hit += wait_for(child) == 128 + SIGKILL;
        if (!fs::exists(path("out/.batch/ledger.db"))) continue;
        for (const auto& entry : fs::directory_iterator(path("out")))
            if (entry.path().extension() == ".png") {
                EXPECT_NO_THROW(load_image(entry.path())) << "half a file";
            }
        for (const auto& [file, at] : done) {
            EXPECT_EQ(fs::last_write_time(file), at.first) << file << " was made again";
            EXPECT_EQ(fs::file_size(file), at.second);
        }
        done = recorded("out");
    }
    const size_t left = count - done.size();
    ASSERT_EQ(run(command).code, 0);
    for (const auto& [file, at] : done) EXPECT_EQ(fs::last_write_time(file), at.first) << file;
    expect_complete("out", count);
    EXPECT_EQ(hit, kills) << "the run was over before";
    std::printf("%d kills, %zu of %zu jobs left after the last\n", hit, left, count);
}

}  // namespace
}  // namespace fovea
