#pragma once

#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "apps/batch/claimant.h"
#include "apps/batch/jobs.h"
#include "apps/batch/sqlite.h"

namespace fovea::apps::batch {

/// A file that is complete but for its name.
struct Made {
    std::string id;
    std::filesystem::path written;  ///< in the claimant's folder
    std::string hash;               ///< SHA-256 of it
    std::string settings;           ///< as JSON, empty: none
    std::string device;
    int64_t batch = 1;        ///< jobs computed together
    double seconds = 0;       ///< computing of the whole batch
    double save_seconds = 0;  ///< encoding, writing, hashing of this one
};

struct Counts {
    int64_t pending = 0, running = 0, done = 0, failed = 0;
    int64_t all() const { return pending + running + done + failed; }
};

/// How a ledger keeps a transaction that is under way.
enum class Journal {
    wal,      ///< for processes of one machine: a commit waits for the disk once
    rollback  ///< others may look from other machines, over a network file system
};

/// Who does what and what is done, in OUTPUT/.batch/ledger.db: shared by all processes that work on
/// one folder. Every call is a transaction; any thread may call. What it says is done is there,
/// with the hash it says. Throws WriteError where the disk is full or read-only.
class Ledger {
  public:
    /// claim_timeout: seconds without a heartbeat after which a process that lives has lost its
    /// claims.
    Ledger(const std::filesystem::path& output, double claim_timeout, Journal journal);
    /// To look at alone, with all jobs: claims and the folders of others stay as they are.
    explicit Ledger(const std::filesystem::path& output);

    const Claimant& claimant() const { return *claimant_; }
    std::filesystem::path output() const { return output_; }

    /// Names of earlier runs, by id.
    std::map<std::string, std::string> files();
    /// Jobs this process is to see done; those that failed before get another try, up to `tries` in
    /// all. One that was in flight when `deaths` processes died is what ends them, and fails.
    /// Throws Error for an id that was another job.
    void enter(const std::vector<Job>& jobs, int tries, int deaths);
    /// Puts back what is said to be done but is not there, or not as it was. → how many
    int64_t verify();

    /// The next job, and others of its group: fewest tries first, then by their place in the file.
    /// What has been tried before comes alone: it may be what ended the process.
    std::optional<Job> claim();
    std::vector<Job> claim_more(const Job& like, int64_t most);

    /// Gives the files their names. What is no longer this process's is dropped; where a name
    /// cannot be taken, that job fails.
    void finish(const std::vector<Made>& made);
    void fail(const Job& job, const std::string& reason, const std::string& device);
    /// As if never claimed, or, with a reason, as tried.
    void put_back(const std::vector<Job>& jobs, const std::string& reason = {});
    /// All that this process has claimed, as if it never had; what it has written without a name is
    /// removed. At the end, when nobody works.
    void release();

    /// Says that this process lives, and frees the claims of those that do not.
    void beat();
    Counts counts();
    /// Jobs of the group that nobody has claimed, `most` where there are more.
    int64_t pending_of(const Job& like, int64_t most);

    /// OUTPUT/results.jsonl, a line a job.
    void write_results();
    /// The same while work goes on: it may be behind by what is done in the meantime.
    void write_results_so_far();
    /// Its text; files begin with the prefix.
    std::string results(const std::string& prefix = {});

  private:
    void fail_own(const std::string& id, const std::string& reason, const std::string& device);
    void expire();
    void give_up();

    std::filesystem::path output_, home_;
    double claim_timeout_ = 0;
    int64_t tries_ = std::numeric_limits<int64_t>::max(), deaths_ = tries_;
    std::mutex mutex_;
    std::unique_ptr<Database> database_;
    std::unique_ptr<Claimant> claimant_;
};

}  // namespace fovea::apps::batch
