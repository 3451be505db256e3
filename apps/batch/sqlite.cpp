#include "apps/batch/sqlite.h"

#include <chrono>
#include <thread>

#include "backend/error.h"
#include "vision/file.h"

namespace fovea::apps::batch {
namespace {

constexpr int kPatience = 60'000;  // ms for others who write

}  // namespace

Statement::Statement(Database& database, const char* sql)
    : database_(database), statement_(nullptr, sqlite3_finalize) {
    sqlite3_stmt* statement = nullptr;
    const int result = sqlite3_prepare_v2(database.handle_.get(), sql, -1, &statement, nullptr);
    statement_.reset(statement);
    check(result);
}

void Statement::check(int result) const {
    if (result != SQLITE_OK && result != SQLITE_ROW && result != SQLITE_DONE) database_.fail();
}

Statement& Statement::bind(const std::string& text) {
    check(sqlite3_bind_text(statement_.get(), ++bound_, text.data(), static_cast<int>(text.size()),
                            SQLITE_TRANSIENT));
    return *this;
}
Statement& Statement::bind(int64_t number) {
    check(sqlite3_bind_int64(statement_.get(), ++bound_, number));
    return *this;
}
Statement& Statement::bind(double number) {
    check(sqlite3_bind_double(statement_.get(), ++bound_, number));
    return *this;
}

bool Statement::step() {
    const int result = sqlite3_step(statement_.get());
    check(result);
    return result == SQLITE_ROW;
}

void Statement::run() {
    while (step()) {
    }
    sqlite3_reset(statement_.get());
    bound_ = 0;
}

std::string Statement::text(int column) const {
    const auto* text = sqlite3_column_text(statement_.get(), column);
    return text ? reinterpret_cast<const char*>(text) : "";
}
int64_t Statement::number(int column) const {
    return sqlite3_column_int64(statement_.get(), column);
}
double Statement::real(int column) const {
    return sqlite3_column_double(statement_.get(), column);
}

Database::Database(const std::filesystem::path& path, Open open)
    : path_(path.string()), handle_(nullptr, sqlite3_close) {
    sqlite3* handle = nullptr;
    const int flags = SQLITE_OPEN_READWRITE | (open == Open::make ? SQLITE_OPEN_CREATE : 0);
    const int result = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
    handle_.reset(handle);
    if (result != SQLITE_OK) fail();
    sqlite3_busy_timeout(handle, kPatience);
    run("PRAGMA synchronous = EXTRA");  // a commit survives a power cut, with every journal
}

void Database::run(const char* sql) {
    if (sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) fail();
}

void Database::use_journal(const char* name) {
    const auto sql = fmt::format("PRAGMA journal_mode = {}", name);
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatience);
    while (sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
        const bool busy = (sqlite3_errcode(handle_.get()) & 0xff) == SQLITE_BUSY;
        if (!busy || std::chrono::steady_clock::now() > end) fail();
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

int64_t Database::changes() const {
    return sqlite3_changes64(handle_.get());
}

void Database::fail() const {
    const int code = sqlite3_errcode(handle_.get()) & 0xff;
    const std::string text = fmt::format("[batch] {}: {}", path_, sqlite3_errmsg(handle_.get()));
    if (code == SQLITE_FULL || code == SQLITE_IOERR || code == SQLITE_READONLY ||
        code == SQLITE_CANTOPEN || code == SQLITE_PERM)
        throw WriteError(text);
    throw Error(text);
}

Transaction::Transaction(Database& database) : database_(database) {
    database_.run("BEGIN IMMEDIATE");
}

Transaction::~Transaction() {
    if (!open_) return;
    try {
        database_.run("ROLLBACK");
    } catch (const Error&) {  // some errors have rolled back already
    }
}

void Transaction::commit() {
    database_.run("COMMIT");
    open_ = false;
}

}  // namespace fovea::apps::batch
