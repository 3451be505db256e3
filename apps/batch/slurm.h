#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "apps/batch/jobs.h"

/// A batch spread over the nodes of a Slurm cluster: an array job, a shard of the jobs a task, each
/// with a folder and a ledger of its own.
namespace fovea::apps::batch {

struct Shard {
    uint64_t index = 0, count = 1;
};
/// "2/8". Throws Error.
Shard parse_shard(const std::string& text);
/// By id: the same whatever else is in the file.
bool is_in(const Job& job, const Shard& shard);

struct SlurmJob {
    std::filesystem::path output;  ///< gets jobs.jsonl, slurm.sh, tasks.txt, logs/, shard-0/ …
    int tasks = 1;
    int gpus = 1;                     ///< a task, by gres; 0: none asked for
    std::string devices;              ///< of --devices, expanded by the task's shell
    std::vector<std::string> sbatch;  ///< further options of sbatch
    std::vector<std::string> batch;   ///< further words of fovea batch
};
/// The script of the array job. A task that is killed and requeued goes on; one that nears its time
/// limit is told 120 s before, finishes what is in flight and asks to be requeued.
std::string slurm_script(const SlurmJob& job, const std::string& program);
/// Writes jobs (the bytes of jobs.jsonl, which holds so many) and script, calls sbatch. → number of
/// the job. Throws Error where the folder has had another number of tasks.
std::string submit(const SlurmJob& job, const std::string& jobs, size_t count);
/// What was submitted to OUTPUT; zeros: nothing.
struct Submitted {
    int64_t tasks = 0, jobs = 0;
};
Submitted submitted_to(const std::filesystem::path& output);

/// As a word of a shell's command line.
std::string quoted(const std::string& word);

/// OUTPUT/shard-0 … that have a ledger; by number.
std::vector<std::filesystem::path> shard_folders(const std::filesystem::path& output);

}  // namespace fovea::apps::batch
