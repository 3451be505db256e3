#pragma once

#include <functional>
#include <iosfwd>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "apps/app.h"
#include "apps/session.h"

/// The jobs of `fovea batch`: JSON Lines, each a command with its long options. docs/batch.md.
namespace fovea::apps::batch {

using Json = nlohmann::json;

/// A command that can be a job.
struct JobType {
    const char* name;
    const char* extension;  ///< of what it makes, where the job's name has none
    void (*add)(CLI::App& app, const std::shared_ptr<Host>& host);
};
const std::vector<JobType>& job_types();
/// Null where there is none of that name.
const JobType* find_type(const std::string& name);

/// Options that are the batch's to give, with what to do instead.
const std::map<std::string, std::string>& refused_keys();

struct Job {
    std::string id;
    int64_t index = 0;  ///< among the jobs of the file, from 0
    int line = 0;
    std::string type;
    Json options;      ///< long option → value, defaults included
    std::string file;  ///< below the output folder

    /// What tells it from others: type and options.
    std::string spec() const;
    /// Jobs with the same group can be drawn together: all but prompt and seed is the same.
    std::string group() const;
};

/// Of what a job makes where its name has none: its type's, or .webp for an edited clip.
std::string extension_of(const Job& job);

struct BadLine {
    int line;
    std::string reason;
};

struct JobList {
    std::vector<Job> jobs;  ///< without names of files
    std::vector<BadLine> bad;
};

/// Reads all lines. defaults: options of all jobs, `type` may be among them. Nothing is thrown for
/// a bad line. Jobs are checked by their own command, as far as it can without a device.
JobList read_jobs(std::istream& in, const Json& defaults);

/// The words of a command line that make it: its type, options, `-o output`.
std::vector<std::string> command_line(const Job& job, const std::string& output);

/// Runs a job's command with this host. Throws Error.
void run_command(const Job& job, const std::string& output, const std::shared_ptr<Host>& host);

/// JSON schema of a line, from the commands' options.
Json job_schema();

}  // namespace fovea::apps::batch
