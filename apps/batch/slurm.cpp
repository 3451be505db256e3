#include "apps/batch/slurm.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "backend/error.h"
#include "vision/file.h"

namespace fovea::apps::batch {
namespace {

namespace fs = std::filesystem;

constexpr const char* kShard = "shard-";

void write_text(const fs::path& path, const std::string& text) {
    write_file(path, std::as_bytes(std::span(text)));
}

// As sbatch reads its options: words in quotes, %a for the task's number.
std::string pattern_of(const std::string& path) {
    require(path.find_first_of("\"\\\n") == std::string::npos,
            "[batch] the folder {} has a quote, a backslash or a line break, which sbatch cannot "
            "take: use another name",
            path);
    std::string text;
    for (const char c : path) text += c == '%' ? "%%" : std::string(1, c);
    return text;
}

}  // namespace

std::string quoted(const std::string& word) {
    std::string text = "'";
    for (const char c : word) text += c == '\'' ? "'\\''" : std::string(1, c);
    return text + "'";
}

Shard parse_shard(const std::string& text) {
    unsigned long long index = 0, count = 0;
    int end = 0;
    require(std::sscanf(text.c_str(), "%llu/%llu%n", &index, &count, &end) == 2 &&
                end == static_cast<int>(text.size()) && index < count,
            "[batch] --shard {} found, expected INDEX/COUNT from 0, as in 2/8", text);
    return {index, count};
}

bool is_in(const Job& job, const Shard& shard) {
    return std::stoull(sha256(job.id).substr(0, 15), nullptr, 16) % shard.count == shard.index;
}

std::string slurm_script(const SlurmJob& job, const std::string& program) {
    const std::string output = job.output.string();
    std::string text = fmt::format(
        "#!/bin/bash\n"
        "#SBATCH --job-name=fovea\n"
        "#SBATCH --array=0-{}\n"
        "#SBATCH --requeue\n"
        "#SBATCH --open-mode=append\n"
        "#SBATCH --output=\"{}/logs/%a.txt\"\n"
        "#SBATCH --signal=B:USR1@120\n",
        job.tasks - 1, pattern_of(output));
    if (job.gpus > 0) text += fmt::format("#SBATCH --gres=gpu:{}\n", job.gpus);
    for (const auto& option : job.sbatch) text += fmt::format("#SBATCH {}\n", option);
    std::string words = job.devices.empty() ? "" : fmt::format(" --devices \"{}\"", job.devices);
    for (const auto& word : job.batch) words += " " + quoted(word);
    text += fmt::format(
        "task=$SLURM_ARRAY_TASK_ID requeue=\n"
        "{} batch {} -o {}/{}$task \\\n"
        "    --shard $task/{}{} &\n"
        "pid=$!\n"
        "trap 'requeue=1; kill -TERM $pid' USR1  # the time limit is near\n"
        "trap 'kill -TERM $pid' TERM\n"
        "while true; do\n"
        "    wait $pid\n"
        "    code=$?\n"
        "    kill -0 $pid 2> /dev/null || break  # else a signal ended the wait, not the program\n"
        "done\n"
        "wait $pid  # a signal may have ended the last one just before the program ended\n"
        "code=$?\n"
        "if [[ $requeue && $code == 130 ]]; then\n"
        "    scontrol requeue \"${{SLURM_ARRAY_JOB_ID}}_$task\"\n"
        "fi\n"
        "exit $code\n",
        quoted(program), quoted(output + "/jobs.jsonl"), quoted(output), kShard, job.tasks, words);
    return text;
}

Submitted submitted_to(const fs::path& output) {
    Submitted result;
    std::ifstream file(output / "tasks.txt");
    file >> result.tasks >> result.jobs;
    return result;
}

std::string submit(const SlurmJob& job, const std::string& jobs, size_t count) {
    const fs::path logs = job.output / "logs", script = job.output / "slurm.sh";
    const fs::path tasks = job.output / "tasks.txt";
    const int64_t before = submitted_to(job.output).tasks;
    require(before == 0 || before == job.tasks,
            "[batch] --slurm {} found, but {} was begun with --slurm {}, by which its jobs are "
            "spread: give the same number, or another folder",
            job.tasks, job.output.string(), before);
    std::error_code error;
    fs::create_directories(logs, error);
    require(!error, "[batch] cannot make {}: {}", logs.string(), error.message());
    write_text(job.output / "jobs.jsonl", jobs);
    const auto program = fs::read_symlink("/proc/self/exe", error);
    write_text(script, slurm_script(job, program.string()));
    const std::string command = "sbatch --parsable " + quoted(script.string()) + " 2>&1";
    FILE* pipe = ::popen(command.c_str(), "r");
    require(pipe != nullptr, "[batch] cannot start sbatch");
    std::string said;
    for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe))
        said += static_cast<char>(c == '\n' ? ' ' : c);
    const int status = ::pclose(pipe);
    require(WIFEXITED(status) && WEXITSTATUS(status) == 0,
            "[batch] sbatch failed: {}. The script is {}", said, script.string());
    write_text(tasks, fmt::format("{}\n{}\n", job.tasks, count));
    return said.substr(0, said.find_first_of(" ;"));
}

std::vector<fs::path> shard_folders(const fs::path& output) {
    std::vector<fs::path> folders;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(output, error))
        if (entry.path().filename().string().starts_with(kShard) &&
            fs::exists(entry.path() / ".batch" / "ledger.db"))
            folders.push_back(entry.path());
    std::sort(folders.begin(), folders.end(), [](const fs::path& a, const fs::path& b) {
        const auto one = a.filename().string(), other = b.filename().string();
        return one.size() != other.size() ? one.size() < other.size() : one < other;
    });
    return folders;
}

}  // namespace fovea::apps::batch
