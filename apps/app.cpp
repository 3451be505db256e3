#include "apps/app.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "backend/error.h"
#include "backend/log.h"

namespace fovea::apps {
namespace {

// A signal handler can reach nothing else.
std::atomic<bool> g_interrupted{false};
std::atomic<int64_t> g_since{0};  // ms

// A scheduler that signals a script and all it started sends one signal twice, within this.
constexpr int64_t kSameSignal = 200;  // ms

extern "C" void on_signal(int signal) {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    const int64_t now = int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000;
    if (!g_interrupted.exchange(true)) {
        g_since = now;
    } else if (now - g_since > kSameSignal) {
        std::signal(signal, SIG_DFL);
        std::raise(signal);
    }
}

}  // namespace

const std::atomic<bool>& interrupted() {
    return g_interrupted;
}

void watch_signals() {
    std::signal(SIGINT, on_signal);
    std::signal(SIGTERM, on_signal);
}

std::string duration_text(double seconds) {
    if (seconds < 60) return fmt::format("{:.1f} s", seconds);
    const int whole = static_cast<int>(seconds + 0.5);
    return fmt::format("{} min {:02} s", whole / 60, whole % 60);
}

std::string size_text(uint64_t bytes) {
    const double mebibytes = static_cast<double>(bytes) / (1 << 20);
    return mebibytes < 1024 ? fmt::format("{:.1f} MiB", mebibytes)
                            : fmt::format("{:.1f} GiB", mebibytes / 1024);
}

Progress::Progress(std::string what, bool shown)
    : what_(std::move(what)),
      start_(std::chrono::steady_clock::now()),
      last_(start_),
      shown_(shown),
      terminal_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
    if (open_) log::say("\n");
}

void Progress::update(int done, int total) {
    if (!shown_) return;
    using Seconds = std::chrono::duration<double>;
    const auto now = std::chrono::steady_clock::now();
    const double elapsed = Seconds(now - start_).count();
    const double left = done > 0 ? elapsed / done * (total - done) : 0;
    if (terminal_) {
        constexpr int kWidth = 30;
        const int filled = done * kWidth / total;
        log::say("\r{} [{:=<{}}{: <{}}] {}/{}  {}, {} left   ", what_, "", filled, "",
                 kWidth - filled, done, total, duration_text(elapsed), duration_text(left));
        std::fflush(stderr);
        open_ = true;
    } else if (done == total || Seconds(now - last_).count() >= 5) {
        log::say("{}: {}/{}, {}, {} left\n", what_, done, total, duration_text(elapsed),
                 duration_text(left));
        last_ = now;
    }
}

void require_finite(CLI::App& app) {
    const auto finite = [](const std::string& word) {
        return std::isfinite(std::strtod(word.c_str(), nullptr))
                   ? std::string()
                   : fmt::format("{} found, expected a number", word);
    };
    for (CLI::Option* option : app.get_options())
        if (option->get_type_name().find("FLOAT") != std::string::npos) option->check(finite);
    for (CLI::App* command : app.get_subcommands({})) require_finite(*command);
}

void require_folder_of(const char* command, const char* option, const std::string& path) {
    const auto folder = std::filesystem::path(path).parent_path();
    std::error_code error;
    require(folder.empty() || std::filesystem::is_directory(folder, error),
            "[{}] {} {} found, but there is no folder {}: make it first", command, option, path,
            folder.string());
}

void require_png(const char* command, const char* option, const std::string& path) {
    require_folder_of(command, option, path);
    require(path.empty() || path.ends_with(".png"), "[{}] {} {} found, expected a .png file",
            command, option, path);
}

}  // namespace fovea::apps
