#include "apps/batch/report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "apps/app.h"
#include "backend/error.h"
#include "backend/log.h"
#include "vision/file.h"

namespace fovea::apps::batch {
namespace {

using Seconds = std::chrono::duration<double>;

Report::Style style_of(const std::string& name) {
    if (name == "json") return Report::Style::json;
    if (name == "none") return Report::Style::none;
    return isatty(STDERR_FILENO) != 0 ? Report::Style::bar : Report::Style::lines;
}

}  // namespace

struct Report::State {
    Counts counts;
    double seconds, rate;  ///< of this run; jobs a second
    double left;           ///< seconds, negative: not known
    int64_t workers;
    double busy;  ///< seconds
};

Report::Report(const std::string& style, std::string metrics, size_t workers)
    : style_(style_of(style)), metrics_(std::move(metrics)), workers_(workers) {}

Report::~Report() {
    if (open_) log::say("\n");
}

void Report::update(const Counts& before, const Counts& now, int64_t workers, double busy_seconds,
                    bool last) {
    State state{.counts = now,
                .seconds = Seconds(Clock::now() - start_).count(),
                .rate = 0,
                .left = -1,
                .workers = workers,
                .busy = busy_seconds};
    const auto ended = static_cast<double>(now.done + now.failed - before.done - before.failed);
    if (ended > 0) {
        state.rate = ended / state.seconds;
        state.left = static_cast<double>(now.pending + now.running) / state.rate;
    }
    show(state, last);
    if (!metrics_.empty() && (last || Seconds(Clock::now() - written_).count() >= 5)) {
        written_ = Clock::now();
        write_metrics(state);
    }
}

void Report::show(const State& s, bool last) {
    const double since = Seconds(Clock::now() - shown_).count();
    const double pause = style_ == Style::lines ? 5 : style_ == Style::json ? 1 : 0.2;
    if (style_ == Style::none || (since < pause && !last)) return;
    shown_ = Clock::now();
    const int64_t ended = s.counts.done + s.counts.failed, all = s.counts.all();
    const std::string left = s.left < 0 ? "" : fmt::format(", {} left", duration_text(s.left));
    const std::string failed =
        s.counts.failed > 0 ? fmt::format(", {} failed", s.counts.failed) : "";
    if (style_ == Style::json) {
        Json json{{"done", s.counts.done},       {"failed", s.counts.failed},
                  {"pending", s.counts.pending}, {"running", s.counts.running},
                  {"seconds", s.seconds},        {"jobs_per_second", s.rate}};
        if (s.left >= 0) json["seconds_left"] = s.left;
        const std::string line = json.dump() + "\n";
        std::fwrite(line.data(), 1, line.size(), stdout);
        std::fflush(stdout);
    } else if (style_ == Style::bar) {
        constexpr int kWidth = 30;
        const auto filled = static_cast<int>(all > 0 ? ended * kWidth / all : kWidth);
        log::say("\rbatch [{:=<{}}{: <{}}] {}/{}{}  {:.2f}/s{}    ", "", filled, "",
                 kWidth - filled, ended, all, failed, s.rate, left);
        std::fflush(stderr);
        open_ = true;
    } else {
        log::say("batch: {}/{}{}, {:.2f}/s{}\n", ended, all, failed, s.rate, left);
    }
}

void Report::write_metrics(const State& s) {
    const double capacity = s.seconds * static_cast<double>(std::max<size_t>(workers_, 1));
    const std::string text = fmt::format(
        "# HELP fovea_batch_jobs Jobs of the run by state.\n"
        "# TYPE fovea_batch_jobs gauge\n"
        "fovea_batch_jobs{{state=\"pending\"}} {}\n"
        "fovea_batch_jobs{{state=\"running\"}} {}\n"
        "fovea_batch_jobs{{state=\"done\"}} {}\n"
        "fovea_batch_jobs{{state=\"failed\"}} {}\n"
        "# HELP fovea_batch_jobs_per_second Mean rate since the start of the process.\n"
        "# TYPE fovea_batch_jobs_per_second gauge\n"
        "fovea_batch_jobs_per_second {:.6g}\n"
        "# HELP fovea_batch_seconds_left Time left at that rate; NaN: not known.\n"
        "# TYPE fovea_batch_seconds_left gauge\n"
        "fovea_batch_seconds_left {}\n"
        "# HELP fovea_batch_busy_ratio Share of the workers' time spent computing.\n"
        "# TYPE fovea_batch_busy_ratio gauge\n"
        "fovea_batch_busy_ratio {:.6g}\n"
        "# HELP fovea_batch_workers Workers that still run.\n"
        "# TYPE fovea_batch_workers gauge\n"
        "fovea_batch_workers {}\n",
        s.counts.pending, s.counts.running, s.counts.done, s.counts.failed, s.rate,
        s.left < 0 ? "NaN" : fmt::format("{:.6g}", s.left), s.busy / capacity, s.workers);
    try {
        write_file(metrics_, std::as_bytes(std::span(text)));
    } catch (const Error& error) {  // no reason to end the work
        if (!std::exchange(told_, true)) log::warn("[batch] no metrics: {}", error.what());
    }
}

}  // namespace fovea::apps::batch
