#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

/// SQLite with owners and errors.
namespace fovea::apps::batch {

class Database;

/// A statement and its row. Binds in the order of its parameters.
class Statement {
  public:
    Statement(Database& database, const char* sql);

    Statement& bind(const std::string& text);
    Statement& bind(int64_t number);
    Statement& bind(double number);

    bool step();  ///< false: no more rows
    void run();   ///< to the end, ready for other parameters

    std::string text(int column) const;
    int64_t number(int column) const;
    double real(int column) const;

  private:
    void check(int result) const;

    Database& database_;
    std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement_;
    int bound_ = 0;
};

class Database {
  public:
    enum class Open { there, make };  ///< make: where it is not there
    /// Throws WriteError where the disk or its permissions are the reason, as all of these do, else
    /// Error.
    Database(const std::filesystem::path& path, Open open);

    void run(const char* sql);
    /// To a journal of this name, WAL or DELETE. SQLite asks others for no patience here: where two
    /// open a new file at once, one is told that it is busy.
    void use_journal(const char* name);
    int64_t changes() const;  ///< rows of the last statement

  private:
    friend class Statement;
    [[noreturn]] void fail() const;

    std::string path_;
    std::unique_ptr<sqlite3, int (*)(sqlite3*)> handle_;
};

/// All or nothing; others that write wait. Undone unless committed.
class Transaction {
  public:
    explicit Transaction(Database& database);
    ~Transaction();
    void commit();

  private:
    Database& database_;
    bool open_ = true;
};

}  // namespace fovea::apps::batch
