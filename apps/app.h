#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>

/// Shared by the subcommands. Each app file adds its subcommand and parses, calls, saves; main.cpp
/// is the list.
namespace fovea::apps {

constexpr const char* kVersion = FOVEA_VERSION;

/// Exit codes: 0 done, 1 an error (one line on stderr), 2 bad usage, 130 interrupted; a command may
/// have more.
constexpr int kInterrupted = 130;

class Host;  // apps/session.h
std::shared_ptr<Host> alone();

void add_attention(CLI::App& app);
void add_batch(CLI::App& app);
void add_bench(CLI::App& app);
void add_calibrate(CLI::App& app);
void add_edit(CLI::App& app, const std::shared_ptr<Host>& host = alone());
void add_generate(CLI::App& app, const std::shared_ptr<Host>& host = alone());
void add_headhunt(CLI::App& app);
void add_info(CLI::App& app);
void add_inpaint(CLI::App& app, const std::shared_ptr<Host>& host = alone());
void add_lens(CLI::App& app, const std::shared_ptr<Host>& host = alone());
void add_plan(CLI::App& app);
void add_score(CLI::App& app);
void add_segment(CLI::App& app, const std::shared_ptr<Host>& host = alone());
void add_features(CLI::App& app);
void add_tune(CLI::App& app);
void add_video(CLI::App& app, const std::shared_ptr<Host>& host = alone());

/// Set by SIGINT and SIGTERM; a second signal ends the program at once.
const std::atomic<bool>& interrupted();
void watch_signals();

/// A bar with the time left on a terminal, a plain line every so often elsewhere; on stderr.
class Progress {
  public:
    explicit Progress(std::string what, bool shown = true);
    ~Progress();
    void update(int done, int total);

  private:
    std::string what_;
    std::chrono::steady_clock::time_point start_, last_;
    bool shown_, terminal_, open_ = false;
};

inline double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
/// "3.2 s", "2 min 05 s"
std::string duration_text(double seconds);
std::string size_text(uint64_t bytes);  ///< "12.3 MiB"

/// Options that take numbers refuse "nan" and "inf", which pass every range's check of CLI11; of
/// all subcommands.
void require_finite(CLI::App& app);

/// Throws Error unless the folder of a file to be written is there; an empty path is none. Before
/// the work, which else would be lost.
void require_folder_of(const char* command, const char* option, const std::string& path);
/// The same, and that it is the name of a PNG; empty: none was asked for.
void require_png(const char* command, const char* option, const std::string& path);

}  // namespace fovea::apps
