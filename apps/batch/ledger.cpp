#include "apps/batch/ledger.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>

#include "apps/generation.h"
#include "backend/error.h"
#include "backend/log.h"
#include "vision/file.h"

namespace fovea::apps::batch {
namespace {

namespace fs = std::filesystem;

// seq: order of work. grp: jobs that can be computed together. owner: of a running job. changed: of
// the file, as the file system has it. deaths: of the tries, those whose process died or hung.
constexpr const char* kSchema = R"sql(
CREATE TABLE IF NOT EXISTS jobs(
    id TEXT PRIMARY KEY, seq INTEGER NOT NULL, line INTEGER NOT NULL, type TEXT NOT NULL,
    options TEXT NOT NULL, grp TEXT NOT NULL, file TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL DEFAULT 'pending' CHECK(state IN ('pending', 'running', 'done', 'failed')),
    tries INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, owner TEXT, reason TEXT,
    hash TEXT, bytes INTEGER, changed INTEGER, settings TEXT, device TEXT,
    batch INTEGER, seconds REAL, save_seconds REAL, started REAL, finished REAL);
CREATE INDEX IF NOT EXISTS jobs_next ON jobs(state, tries, seq);
CREATE INDEX IF NOT EXISTS jobs_group ON jobs(grp, state, tries, seq);
CREATE TABLE IF NOT EXISTS claimants(id TEXT PRIMARY KEY, heartbeat REAL NOT NULL);
)sql";

constexpr const char* kMine = "CREATE TEMP TABLE mine(id TEXT PRIMARY KEY) WITHOUT ROWID";

constexpr const char* kJobColumns = "id, seq, line, type, options, file";
constexpr const char* kIsMine = "EXISTS(SELECT 1 FROM mine WHERE mine.id = jobs.id)";

double now() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch())
        .count();
}

std::string group_of(const Job& job) {
    return sha256(job.group()).substr(0, 16);
}

Job job_of(const Statement& row) {
    return {.id = row.text(0),
            .index = row.number(1),
            .line = static_cast<int>(row.number(2)),
            .type = row.text(3),
            .options = Json::parse(row.text(4)),
            .file = row.text(5)};
}

// Of the last change, in a unit of the library's; 0: no such file.
int64_t change_of(const fs::path& file) {
    std::error_code error;
    const auto time = fs::last_write_time(file, error);
    return error ? 0 : static_cast<int64_t>(time.time_since_epoch().count());
}

int64_t bytes_of(const fs::path& file) {
    std::error_code error;
    const auto bytes = fs::file_size(file, error);
    return error ? -1 : static_cast<int64_t>(bytes);
}

// Each new one is synced into the one above it.
void make_folders(const fs::path& folder) {
    if (fs::is_directory(folder)) return;
    require(!fs::exists(fs::symlink_status(folder)),
            "[batch] {} is no folder: give the job another output", folder.string());
    make_folders(folder.parent_path());
    std::error_code error;
    fs::create_directory(folder, error);
    if (error && !fs::is_directory(folder))
        throw WriteError(
            fmt::format("[batch] cannot make {}: {}", folder.string(), error.message()));
    const int above = ::open(folder.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (above < 0) return;
    ::fsync(above);
    ::close(above);
}

// A line a job. Options and settings are put in as the JSON that they are.
std::string results_of(Database& database, const std::string& prefix) {
    std::string text;
    Statement all(database,
                  "SELECT id, seq, line, type, options, file, state, tries, reason, hash, bytes, "
                  "settings, device, batch, seconds, save_seconds, started, finished FROM jobs "
                  "ORDER BY seq, id");
    while (all.step()) {
        const std::string state = all.text(6), settings = all.text(11);
        Json line{{"id", all.text(0)},   {"line", all.number(2)},
                  {"type", all.text(3)}, {"file", prefix + all.text(5)},
                  {"state", state},      {"tries", all.number(7)}};
        if (state == "failed") line["error"] = all.text(8);
        if (state == "failed" || state == "done") {
            line["device"] = all.text(12);
            line["started"] = all.real(16);
            line["finished"] = all.real(17);
        }
        if (state == "done") {
            line["sha256"] = all.text(9);
            line["bytes"] = all.number(10);
            line["batch"] = all.number(13);
            line["seconds"] = all.real(14);
            line["save_seconds"] = all.real(15);
        }
        std::string own = json_text(line);  // a reason may be of any bytes
        own.pop_back();
        text += own + ",\"options\":" + all.text(4);
        if (state == "done" && !settings.empty()) text += ",\"settings\":" + settings;
        text += "}\n";
    }
    return text;
}

}  // namespace

Ledger::Ledger(const fs::path& output, double claim_timeout, Journal journal)
    : output_(fs::absolute(output).lexically_normal()),
      home_(output_ / ".batch"),
      claim_timeout_(claim_timeout) {
    if (!output_.has_filename()) output_ = output_.parent_path();
    make_folders(output_ / ".batch");
    claimant_ = std::make_unique<Claimant>(home_);
    database_ = std::make_unique<Database>(home_ / "ledger.db", Database::Open::make);
    database_->use_journal(journal == Journal::wal ? "WAL" : "DELETE");
    database_->run(kMine);
    Transaction transaction(*database_);
    database_->run(kSchema);
    Statement has_deaths(*database_,
                         "SELECT 1 FROM pragma_table_info('jobs') WHERE name = 'deaths'");
    if (!has_deaths.step())  // of an earlier version
        database_->run("ALTER TABLE jobs ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0");
    has_deaths.run();
    Statement(*database_, "INSERT INTO claimants VALUES(?, ?)")
        .bind(claimant_->id())
        .bind(now())
        .run();
    expire();
    transaction.commit();
}

// Not read-only for SQLite, which has to undo what a process that died has left half done.
Ledger::Ledger(const fs::path& output)
    : output_(fs::absolute(output).lexically_normal()), home_(output_ / ".batch") {
    database_ = std::make_unique<Database>(home_ / "ledger.db", Database::Open::there);
    database_->run(kMine);
    database_->run("INSERT INTO mine SELECT id FROM jobs");
}

std::map<std::string, std::string> Ledger::files() {
    const std::lock_guard lock(mutex_);
    std::map<std::string, std::string> files;
    Statement all(*database_, "SELECT id, file FROM jobs");
    while (all.step()) files.emplace(all.text(0), all.text(1));
    return files;
}

void Ledger::enter(const std::vector<Job>& jobs, int tries, int deaths) {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*database_);
    Statement add(*database_,
                  "INSERT INTO jobs(id, seq, line, type, options, grp, file) "
                  "VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET seq = excluded.seq, "
                  "line = excluded.line WHERE type = excluded.type AND options = excluded.options");
    Statement mine(*database_, "INSERT INTO mine VALUES(?)");
    for (const Job& job : jobs) {
        add.bind(job.id).bind(job.index).bind(int64_t{job.line}).bind(job.type);
        add.bind(job.options.dump()).bind(group_of(job)).bind(job.file).run();
        require(database_->changes() == 1,
                "[batch] line {}: the id {} was another job in {}: use another id or another "
                "folder",
                job.line, job.id, output_.string());
        mine.bind(job.id).run();
    }
    Statement(*database_, fmt::format("UPDATE jobs SET state = 'pending' WHERE state = 'failed' "
                                      "AND tries - deaths < ? AND deaths < ? AND {}",
                                      kIsMine)
                              .c_str())
        .bind(int64_t{tries})
        .bind(int64_t{deaths})
        .run();
    tries_ = tries;
    deaths_ = deaths;
    give_up();
    transaction.commit();
}

int64_t Ledger::verify() {
    const std::lock_guard lock(mutex_);
    Statement done(*database_,
                   fmt::format("SELECT id, file, hash, bytes, changed FROM jobs WHERE state = "
                               "'done' AND {}",
                               kIsMine)
                       .c_str());
    std::map<std::string, std::string> wrong, touched;  // id → hash
    while (done.step()) {
        const fs::path file = output_ / done.text(1);
        const std::string hash = done.text(2);
        const int64_t changed = change_of(file);
        const bool there = bytes_of(file) == done.number(3);
        if (there && changed == done.number(4)) continue;
        if (there && sha256_of_file(file) == hash)
            touched.emplace(done.text(0), hash);
        else
            wrong.emplace(done.text(0), hash);
    }
    Transaction transaction(*database_);
    Statement put_back(
        *database_,
        "UPDATE jobs SET state = 'pending', tries = 0, deaths = 0 WHERE id = ? AND hash = ? AND "
        "state = 'done'");
    for (const auto& [id, hash] : wrong) put_back.bind(id).bind(hash).run();
    Statement touch(*database_, "UPDATE jobs SET changed = ? WHERE id = ? AND hash = ?");
    for (const auto& [id, hash] : touched) {
        Statement file(*database_, "SELECT file FROM jobs WHERE id = ?");
        file.bind(id).step();
        touch.bind(change_of(output_ / file.text(0))).bind(id).bind(hash).run();
    }
    transaction.commit();
    return std::ssize(wrong);
}

std::optional<Job> Ledger::claim() {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*database_);
    Statement next(*database_, fmt::format("SELECT {} FROM jobs WHERE state = 'pending' AND {} "
                                           "ORDER BY tries, seq LIMIT 1",
                                           kJobColumns, kIsMine)
                                   .c_str());
    if (!next.step()) return std::nullopt;
    const Job job = job_of(next);
    next.run();
    Statement(*database_,
              "UPDATE jobs SET state = 'running', tries = tries + 1, owner = ?, started = ? "
              "WHERE id = ?")
        .bind(claimant_->id())
        .bind(now())
        .bind(job.id)
        .run();
    transaction.commit();
    return job;
}

std::vector<Job> Ledger::claim_more(const Job& like, int64_t most) {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*database_);
    Statement next(*database_,
                   fmt::format("SELECT {} FROM jobs WHERE grp = ? AND state = 'pending' AND tries "
                               "= 0 AND {} ORDER BY seq LIMIT ?",
                               kJobColumns, kIsMine)
                       .c_str());
    next.bind(group_of(like)).bind(most);
    std::vector<Job> jobs;
    while (next.step()) jobs.push_back(job_of(next));
    next.run();
    Statement claim(*database_,
                    "UPDATE jobs SET state = 'running', tries = tries + 1, owner = ?, started = ? "
                    "WHERE id = ?");
    for (const Job& job : jobs) claim.bind(claimant_->id()).bind(now()).bind(job.id).run();
    transaction.commit();
    return jobs;
}

// The names are given while nobody else can claim: a process that has lost its claims in the
// meantime does not put its file over that of another.
void Ledger::finish(const std::vector<Made>& made) {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*database_);
    Statement mine(*database_,
                   "SELECT file FROM jobs WHERE id = ? AND state = 'running' AND owner = ?");
    Statement done(*database_,
                   "UPDATE jobs SET state = 'done', owner = NULL, reason = NULL, hash = ?, bytes = "
                   "?, changed = ?, settings = ?, device = ?, batch = ?, seconds = ?, save_seconds "
                   "= ?, finished = ? WHERE id = ?");
    for (const Made& one : made) {
        const bool own = mine.bind(one.id).bind(claimant_->id()).step();
        const fs::path file = own ? output_ / mine.text(0) : fs::path();
        mine.run();
        if (!own) {
            log::warn("[batch] {} was done by another process in the meantime", one.id);
            continue;
        }
        try {
            make_folders(file.parent_path());
            rename_file(one.written, file);
        } catch (const WriteError&) {
            throw;
        } catch (const Error& error) {  // of this name alone
            fail_own(one.id, error.what(), one.device);
            continue;
        }
        done.bind(one.hash).bind(bytes_of(file)).bind(change_of(file)).bind(one.settings);
        done.bind(one.device).bind(one.batch).bind(one.seconds).bind(one.save_seconds);
        done.bind(now()).bind(one.id).run();
    }
    transaction.commit();
}

void Ledger::fail(const Job& job, const std::string& reason, const std::string& device) {
    const std::lock_guard lock(mutex_);
    fail_own(job.id, reason, device);
}

void Ledger::fail_own(const std::string& id, const std::string& reason, const std::string& device) {
    Statement(*database_,
              "UPDATE jobs SET state = 'failed', owner = NULL, reason = ?, device = ?, finished = "
              "? WHERE id = ? AND state = 'running' AND owner = ?")
        .bind(reason)
        .bind(device)
        .bind(now())
        .bind(id)
        .bind(claimant_->id())
        .run();
}

void Ledger::release() {
    const std::lock_guard lock(mutex_);
    claimant_->clear();  // a full disk gets room for the ledger
    Statement(*database_,
              "UPDATE jobs SET state = 'pending', owner = NULL, tries = tries - 1 WHERE state = "
              "'running' AND owner = ?")
        .bind(claimant_->id())
        .run();
}

void Ledger::put_back(const std::vector<Job>& jobs, const std::string& reason) {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*database_);
    Statement back(*database_,
                   "UPDATE jobs SET state = 'pending', owner = NULL, tries = tries - ?, reason = "
                   "coalesce(nullif(?, ''), reason) WHERE id = ? AND state = 'running' AND owner = "
                   "?");
    for (const Job& job : jobs) {
        back.bind(int64_t{reason.empty()}).bind(reason);
        back.bind(job.id).bind(claimant_->id()).run();
    }
    give_up();
    transaction.commit();
}

void Ledger::beat() {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*database_);
    Statement(*database_,
              "INSERT INTO claimants VALUES(?, ?) ON CONFLICT(id) DO UPDATE SET heartbeat = "
              "excluded.heartbeat")
        .bind(claimant_->id())
        .bind(now())
        .run();
    expire();
    give_up();
    transaction.commit();
}

// Else a job that ends its process or loses its device would do so at every start.
void Ledger::give_up() {
    Statement(*database_, fmt::format("UPDATE jobs SET state = 'failed', finished = ? WHERE state "
                                      "= 'pending' AND (tries - deaths >= ? OR deaths >= ?) AND "
                                      "{}",
                                      kIsMine)
                              .c_str())
        .bind(now())
        .bind(tries_)
        .bind(deaths_)
        .run();
}

void Ledger::expire() {
    std::vector<std::string> gone;
    Statement others(*database_, "SELECT id, heartbeat FROM claimants WHERE id != ?");
    others.bind(claimant_->id());
    while (others.step()) {
        const std::string id = others.text(0);
        if (now() - others.real(1) > claim_timeout_ || !Claimant::lives(home_, id))
            gone.push_back(id);
    }
    Statement free(*database_,
                   "UPDATE jobs SET state = 'pending', owner = NULL, deaths = deaths + 1, reason = "
                   "'its process died or hung, ' || (deaths + 1) || ' time(s)' WHERE state = "
                   "'running' AND owner = ?");
    Statement forget(*database_, "DELETE FROM claimants WHERE id = ?");
    for (const auto& id : gone) {
        free.bind(id).run();
        forget.bind(id).run();
    }
}

Counts Ledger::counts() {
    const std::lock_guard lock(mutex_);
    Counts counts;
    Statement all(
        *database_,
        fmt::format("SELECT state, count(*) FROM jobs WHERE {} GROUP BY state", kIsMine).c_str());
    while (all.step()) {
        const std::string state = all.text(0);
        (state == "pending"   ? counts.pending
         : state == "running" ? counts.running
         : state == "done"    ? counts.done
                              : counts.failed) = all.number(1);
    }
    return counts;
}

int64_t Ledger::pending_of(const Job& like, int64_t most) {
    const std::lock_guard lock(mutex_);
    Statement count(*database_,
                    fmt::format("SELECT count(*) FROM (SELECT 1 FROM jobs WHERE grp = ? AND state "
                                "= 'pending' AND {} LIMIT ?)",
                                kIsMine)
                        .c_str());
    count.bind(group_of(like)).bind(most).step();
    return count.number(0);
}

// Written while nobody changes what it says: of two processes that end, the later one's stays.
void Ledger::write_results() {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*database_);
    const std::string text = results_of(*database_, {});
    write_file(output_ / "results.jsonl", std::as_bytes(std::span(text)));
    transaction.commit();
}

// By a connection of its own, which nobody waits for where the journal is a WAL.
void Ledger::write_results_so_far() {
    Database database(home_ / "ledger.db", Database::Open::there);
    const std::string text = results_of(database, {});
    write_file(output_ / "results.jsonl", std::as_bytes(std::span(text)));
}

std::string Ledger::results(const std::string& prefix) {
    const std::lock_guard lock(mutex_);
    return results_of(*database_, prefix);
}

}  // namespace fovea::apps::batch
