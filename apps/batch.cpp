#include <fmt/format.h>
#include <fmt/ranges.h>

#ifdef __linux__
#include <malloc.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>
#include <thread>

#include "apps/app.h"
#include "apps/batch/names.h"
#include "apps/batch/report.h"
#include "apps/batch/run.h"
#include "apps/batch/slurm.h"
#include "backend/error.h"
#include "backend/log.h"
#include "vision/file.h"

namespace fovea::apps {
namespace {

using namespace batch;
using Clock = std::chrono::steady_clock;

/// Exit codes beside those of all commands.
constexpr int kInvalid = 2, kSomeFailed = 3, kStopped = 4;

constexpr auto kTick = std::chrono::milliseconds(100);
// Seconds between looks at the ledger, heartbeats, results.jsonl; the parts of the time that the
// first and the last may take, as they grow with the number of jobs and workers wait for them.
constexpr double kLook = 0.5, kBeat = 2, kResults = 30;
constexpr double kPart = 0.02;

struct BatchOptions {
    std::string jobs, output = "batch/", name = "{id}", batch = "auto", progress = "auto", metrics;
    std::vector<std::string> defaults, devices, slurm_options;
    std::string shard;
    int tries = 3, deaths = 10, workers = 0, slurm = 0, slurm_gpus = 1;
    double claim_timeout = 60;
    bool skip_invalid = false, deterministic = false, dry_run = false, schema = false,
         status = false;
};

// "steps=8" → a number where it is one, else text.
Json defaults_of(const BatchOptions& options) {
    Json defaults = Json::object();
    for (const auto& text : options.defaults) {
        const size_t at = text.find('=');
        require(at != std::string::npos && at > 0, "[batch] --default {} found, expected KEY=VALUE",
                text);
        const std::string value = text.substr(at + 1);
        const Json json = Json::parse(value, nullptr, false);
        defaults[text.substr(0, at)] = json.is_discarded() ? Json(value) : json;
    }
    return defaults;
}

std::string text_of(const BatchOptions& options) {
    require(!options.jobs.empty(), "[batch] no jobs; try fovea batch jobs.jsonl -o batch/");
    if (options.jobs == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
    std::error_code error;
    require(!std::filesystem::is_directory(options.jobs, error),
            "[batch] {} is a folder, expected a file of JSON Lines", options.jobs);
    std::ifstream file(options.jobs);
    require(file.good(), "[batch] cannot open {}", options.jobs);
    return {std::istreambuf_iterator<char>(file), {}};
}

// Every bad line; nothing runs unless they are to be skipped.
void report_bad(const BatchOptions& options, const JobList& list) {
    const std::string file = options.jobs == "-" ? "standard input" : options.jobs;
    for (const BadLine& bad : list.bad) log::say("{}:{}: {}\n", file, bad.line, bad.reason);
    if (list.bad.empty()) return;
    std::set<int> lines;
    for (const BadLine& bad : list.bad) lines.insert(bad.line);
    log::say("fovea: {} of the lines are bad{}\n", lines.size(),
             options.skip_invalid ? "; going on without them"
                                  : ", nothing was done; --skip-invalid goes on without them");
    if (!options.skip_invalid) throw CLI::RuntimeError(kInvalid);
}

int64_t batch_of(const BatchOptions& options) {
    if (options.deterministic) return 1;
    if (options.batch == "auto") return 0;
    const bool digits = !options.batch.empty() && options.batch.size() < 6 &&
                        std::all_of(options.batch.begin(), options.batch.end(),
                                    [](char c) { return c >= '0' && c <= '9'; });
    const int64_t number = digits ? std::stoll(options.batch) : 0;
    require(number >= 1, "[batch] --batch {} found, expected auto or a number from 1",
            options.batch);
    return number;
}

// "all": the GPUs, or what there is without one.
std::vector<std::string> devices_of(const BatchOptions& options) {
    if (options.devices.empty()) return {""};
    if (options.devices != std::vector<std::string>{"all"}) return options.devices;
    std::vector<std::string> gpus, others;
    for (const auto& device : vk::list_devices())
        if (device.usable.ok)
            (device.type == vk::DeviceType::cpu ? others : gpus)
                .push_back(std::to_string(device.index));
    require(!gpus.empty() || !others.empty(), "[batch] no device can be used; see fovea info");
    return gpus.empty() ? others : gpus;
}

// Each device as often as it has workers: on a GPU two fill each other's pauses.
std::vector<std::string> workers_on(const std::vector<std::string>& devices, int asked) {
    std::vector<std::string> workers;
    for (const auto& device : devices) {
        const bool cpu = vk::find_device(device).type == vk::DeviceType::cpu;
        const int count = asked > 0 ? asked : cpu ? 1 : 2;
        workers.insert(workers.end(), static_cast<size_t>(count), device);
    }
    return workers;
}

/// The threads of the devices, and what became of them.
class Workers {
  public:
    Workers(Run& run, Writer& writer)
        : working_(std::ssize(run.options.devices)), sessions_(run.options.devices.size()) {
        for (size_t i = 0; i < sessions_.size(); ++i) {
            try {
                threads_.emplace_back([this, &run, &writer, i] {
                    try {
                        work(run, writer, run.options.devices[i], sessions_[i]);
                    } catch (const WriteError& error) {
                        run.stop(error.what());
                    } catch (const std::exception& error) {
                        give_up(error.what());
                    }
                    // Nor does one end while another closes a device that was lost, see work().
                    leave();
                    while (const int64_t others = working_) working_.wait(others);
                });
            } catch (const std::system_error& error) {  // of how many threads there may be
                give_up(fmt::format("no thread for it: {}", error.what()));
                leave();
            }
        }
    }
    int64_t working() const { return working_; }
    void join() {
        threads_.clear();
        sessions_.clear();
    }
    /// Why one ended before its time; empty: none did.
    std::string reason() const {
        const std::lock_guard lock(mutex_);
        return reason_;
    }

  private:
    void give_up(const std::string& reason) {
        log::error("a worker ends: {}", reason);
        const std::lock_guard lock(mutex_);
        reason_ = reason;
    }
    void leave() {
        --working_;
        working_.notify_all();
    }

    std::atomic<int64_t> working_;
    mutable std::mutex mutex_;
    std::string reason_;
    std::vector<std::optional<Session>> sessions_;
    std::vector<std::jthread> threads_;  // end before the sessions
};

// Until the workers have no more to do and all they made is kept.
void watch(Run& run, const Workers& workers, Writer& writer, Report& report, const Counts& before) {
    auto beat = Clock::now(), results = beat, look = beat;
    double until_look = 0, until_results = kResults;
    bool told = false;
    while (workers.working() > 0 || !writer.idle()) {
        std::this_thread::sleep_for(kTick);
        try {
            if (interrupted() && !told) {
                log::say("\nfovea: finishing what is in flight; a second signal ends at once\n");
                told = true;
            }
            if (seconds_since(beat) >= kBeat) {
                run.ledger.beat();
                beat = Clock::now();
            }
            if (seconds_since(results) >= until_results) {
                results = Clock::now();
                run.ledger.write_results_so_far();
                until_results = std::max(kResults, seconds_since(results) / kPart);
            }
            if (seconds_since(look) < until_look) continue;
            look = Clock::now();
            const Counts counts = run.ledger.counts();
            until_look = std::max(kLook, seconds_since(look) / kPart);
            report.update(before, counts, workers.working(), static_cast<double>(run.busy_us) / 1e6,
                          false);
        } catch (const std::exception& error) {
            run.stop(error.what());
        }
    }
}

// The exit code.
int finish(Run& run, const Workers& workers, Report& report, const Counts& before, size_t skipped) {
    Counts counts = before;
    try {
        run.ledger.release();
        counts = run.ledger.counts();
        run.ledger.write_results();
        report.update(before, counts, workers.working(), static_cast<double>(run.busy_us) / 1e6,
                      true);
    } catch (const std::exception& error) {
        run.stop(error.what());
    }
    log::say("{} of {} done{}; {}\n", counts.done, counts.all(),
             counts.failed > 0 ? fmt::format(", {} failed", counts.failed) : "",
             (run.ledger.output() / "results.jsonl").string());
    const int64_t open = counts.pending + counts.running;
    if (run.stopped()) {
        log::say("fovea: error: {}. Stopped; what is done stays, the same command goes on\n",
                 run.reason());
        return kStopped;
    }
    if (open > 0 && interrupted()) {
        log::say("fovea: interrupted; the same command goes on\n");
        return kInterrupted;
    }
    const int bad = counts.done == 0 && counts.all() > 0 ? 1 : kSomeFailed;
    if (open > 0) {
        log::say("fovea: error: no device is left: {}\n", workers.reason());
        return counts.done == before.done ? 1 : kStopped;
    }
    return counts.failed > 0 || skipped > 0 ? bad : 0;
}

// Of a folder and of its shards.
void status(const BatchOptions& options) {
    const std::filesystem::path output = options.output;
    const auto shards = shard_folders(output);
    std::vector<std::filesystem::path> folders = shards;
    if (std::filesystem::exists(output / ".batch" / "ledger.db")) folders.push_back(output);
    const Submitted submitted = submitted_to(output);
    require(!folders.empty() || submitted.tasks > 0,
            "[batch] {} has no ledger: nothing was begun there", options.output);
    Counts sum;
    std::string results;
    for (const auto& folder : folders) {
        Ledger ledger(folder);
        const Counts counts = ledger.counts();
        sum.done += counts.done;
        sum.failed += counts.failed;
        sum.pending += counts.pending;
        sum.running += counts.running;
        if (shards.empty())
            ledger.write_results();
        else
            results += ledger.results(
                folder == output ? "" : (folder.filename() / std::string()).string());
    }
    if (!shards.empty()) write_file(output / "results.jsonl", std::as_bytes(std::span(results)));
    // Tasks that have not begun have no ledger yet.
    sum.pending += std::max<int64_t>(0, submitted.jobs - sum.all());
    Json said{{"done", sum.done},
              {"failed", sum.failed},
              {"pending", sum.pending},
              {"running", sum.running},
              {"shards", shards.size()}};
    if (submitted.tasks > 0) said["tasks"] = submitted.tasks;
    fmt::print("{}\n", said.dump());
}

// With the words of this command line that concern the jobs.
void submit_to_slurm(const BatchOptions& options, const std::string& jobs, size_t count) {
    require(options.metrics.empty(),
            "[batch] --metrics found with --slurm: tasks would write over "
            "each other's; results.jsonl and --status have the numbers");
    require(options.shard.empty(),
            "[batch] --shard found with --slurm, which gives a shard a task");
    SlurmJob job{.output = std::filesystem::absolute(options.output).lexically_normal(),
                 .tasks = options.slurm,
                 .gpus = options.slurm_gpus,
                 .devices = options.devices.empty()
                                ? (options.slurm_gpus > 0 ? "all" : "")
                                : fmt::format("{}", fmt::join(options.devices, ",")),
                 .sbatch = options.slurm_options,
                 .batch = {"--name", options.name, "--batch", options.batch, "--tries",
                           std::to_string(options.tries), "--deaths",
                           std::to_string(options.deaths), "--claim-timeout",
                           fmt::format("{}", options.claim_timeout), "--progress", "none"}};
    if (!job.output.has_filename()) job.output = job.output.parent_path();
    for (const auto& text : options.defaults) job.batch.push_back("--default=" + text);
    if (options.skip_invalid) job.batch.emplace_back("--skip-invalid");
    if (options.workers > 0) job.batch.push_back(fmt::format("--workers={}", options.workers));
    if (options.deterministic) job.batch.emplace_back("--deterministic");
    const char* tune = std::getenv("FOVEA_TUNE");  // --no-tune sets it
    if (tune != nullptr && tune == std::string_view("off")) job.batch.emplace_back("--no-tune");
    fmt::print("{}\n", submit(job, jobs, count));
    log::say("{} tasks submitted; fovea batch --status -o {}\n", options.slurm,
             quoted(options.output));
}

void run(const BatchOptions& options) {
    if (options.schema) {
        fmt::print("{}\n", job_schema().dump(2));
        return;
    }
    if (options.status) return status(options);
    RunOptions settings{.devices = {}, .batch = batch_of(options)};
    require_folder_of("batch", "--metrics", options.metrics);
    const Shard shard = options.shard.empty() ? Shard() : parse_shard(options.shard);
    const std::string text = text_of(options);
    std::istringstream in(text);
    JobList list = read_jobs(in, defaults_of(options));
    name_jobs(list, options.name, {});
    report_bad(options, list);
    if (options.dry_run) {
        for (const Job& job : list.jobs)
            fmt::print("{}\n", Json{{"id", job.id},
                                    {"type", job.type},
                                    {"line", job.line},
                                    {"options", job.options},
                                    {"file", job.file}}
                                   .dump());
        return;
    }
    require(!list.jobs.empty(), "[batch] {} has no job", options.jobs);
    if (options.slurm > 0) return submit_to_slurm(options, text, list.jobs.size());
    size_t skipped = list.bad.size();
    const auto devices = devices_of(options);
    Ledger ledger(options.output, options.claim_timeout,
                  options.shard.empty() ? Journal::wal : Journal::rollback);
    list.bad.clear();
    name_jobs(list, options.name, ledger.files());
    report_bad(options, list);
    skipped += list.bad.size();
    require(!list.jobs.empty(), "[batch] {} has no job", options.jobs);
    std::erase_if(list.jobs, [&](const Job& job) { return !is_in(job, shard); });
    ledger.enter(list.jobs, options.tries, options.deaths);
    if (const int64_t lost = ledger.verify(); lost > 0)
        log::warn("{} file(s) that were done are missing or changed; they are made again", lost);

    const Counts before = ledger.counts();
    if (before.pending + before.running > 0)  // else nobody needs a device
        settings.devices = workers_on(devices, options.workers);
    Run run(ledger, std::move(settings));
    Report report(options.progress, options.metrics, run.options.devices.size());
#ifdef __GLIBC__
    // Pictures come and go on all threads: memory that is free stays mapped.
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
#endif
    std::optional<Workers> workers;
    {
        const int threads =
            std::clamp<int>(static_cast<int>(std::thread::hardware_concurrency()) / 2, 1, 32);
        Writer writer(run, threads);
        workers.emplace(run, writer);
        watch(run, *workers, writer, report, before);
        workers->join();
    }
    if (const int code = finish(run, *workers, report, before, skipped); code != 0)
        throw CLI::RuntimeError(code);
}

}  // namespace

void add_batch(CLI::App& app) {
    auto* command = app.add_subcommand("batch", "Do the jobs of a file; go on where it stopped");
    auto options = std::make_shared<BatchOptions>();
    std::vector<std::string> types;
    for (const JobType& type : job_types()) types.emplace_back(type.name);
    command->footer(fmt::format(
        "Examples:\n"
        "  fovea batch jobs.jsonl -o batch/\n"
        "  fovea batch jobs.jsonl -o batch/ --name \"{{index:05}}-{{prompt:40}}\" --default "
        "steps=12\n"
        "  fovea batch jobs.jsonl -o batch/ --devices all --metrics "
        "/var/lib/node_exporter/fovea.prom\n"
        "  generate-jobs | fovea batch - -o batch/ --dry-run\n"
        "\n"
        "A line is a job: a command ({}) with its long options, as in\n"
        "  {{\"type\": \"generate\", \"prompt\": \"a red apple\", \"seed\": 7, \"id\": "
        "\"apple-7\"}}\n"
        "  {{\"defaults\": {{\"type\": \"generate\", \"steps\": 12}}}}       of the lines below\n"
        "  {{\"prompt\": \"a cat\", \"grid\": {{\"seed\": [1, 2, 3], \"cfg\": [3, 5]}}}}   six "
        "jobs\n"
        "The same command goes on after whatever ended it; several may work on one folder.\n"
        "docs/batch.md\n"
        "\n"
        "Exit codes: 0 all done; 1 nothing done; 2 bad usage or bad lines; {} some failed or were\n"
        "skipped; {} stopped (a full disk, no device left), to be started again; {} interrupted.",
        fmt::join(types, ", "), kSomeFailed, kStopped, kInterrupted));
    command->add_option("jobs", options->jobs, "JSON Lines; - reads standard input");
    command->add_option("-o,--output", options->output, "Folder of the files and of the ledger")
        ->capture_default_str();
    command
        ->add_option("--name", options->name,
                     "Names of files: {id}, {index:05}, {seed}, {prompt:40}, any option; / makes "
                     "folders")
        ->capture_default_str();
    command
        ->add_option("--default", options->defaults,
                     "KEY=VALUE of all jobs that do not say otherwise; may be repeated")
        ->allow_extra_args(false);
    command->add_flag("--skip-invalid", options->skip_invalid, "Go on without bad lines");
    command->add_flag("--dry-run", options->dry_run, "Check all jobs, list them, make nothing");
    command->add_flag("--status", options->status,
                      "Print how far it is, and write results.jsonl from the ledger");
    command->add_flag("--schema", options->schema, "Print the JSON schema of a line");
    command
        ->add_option("--batch", options->batch,
                     "Pictures that differ in prompt and seed alone, drawn together: auto or a "
                     "number")
        ->capture_default_str();
    command->add_flag("--deterministic", options->deterministic,
                      "Each alone: the same bits as fovea generate, on GPUs too");
    command
        ->add_option("--devices", options->devices, "all, or indices or parts of names as in 0,1")
        ->delimiter(',')
        ->allow_extra_args(false);
    command
        ->add_option("--workers", options->workers,
                     "On each device (default: 2 on GPUs, where one computes while the other reads "
                     "jobs and fetches pictures, 1 on CPUs)")
        ->check(CLI::Range(1, 16));
    command
        ->add_option("--tries", options->tries,
                     "Of a job that fails or whose device does, a start of the batch each")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    command
        ->add_option(
            "--deaths", options->deaths,
            "Of processes with a job in flight, after which that job fails: it may be what "
            "ends them")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    command
        ->add_option("--claim-timeout", options->claim_timeout,
                     "Seconds without a sign of life after which others do a process's jobs")
        ->check(CLI::Range(3.0, 86400.0))
        ->capture_default_str();
    command
        ->add_option("--progress", options->progress,
                     "auto (a bar on a terminal), json (objects on stdout) or none")
        ->check(CLI::IsMember({"auto", "json", "none"}))
        ->capture_default_str();
    command->add_option("--metrics", options->metrics, "Write a Prometheus text file");
    command->add_option("--shard", options->shard, "INDEX/COUNT: only these of the jobs, by id");
    command
        ->add_option("--slurm", options->slurm,
                     "Submit an array job of so many tasks, a shard each, instead")
        ->check(CLI::Range(1, 100000));
    command->add_option("--slurm-gpus", options->slurm_gpus, "GPUs a task (gres); 0: none")
        ->check(CLI::Range(0, 64))
        ->capture_default_str();
    command
        ->add_option("--slurm-option", options->slurm_options,
                     "Of sbatch, as in --slurm-option=--partition=gpu; may be repeated")
        ->allow_extra_args(false);
    command->callback([options] {
        try {
            run(*options);
        } catch (const WriteError& error) {
            log::say("fovea: error: {}. Stopped; the same command goes on\n", error.what());
            throw CLI::RuntimeError(kStopped);
        }
    });
}

}  // namespace fovea::apps
