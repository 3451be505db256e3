#pragma once

#include <chrono>
#include <string>

#include "apps/batch/ledger.h"

namespace fovea::apps::batch {

/// How far a run is, for people and programs.
class Report {
  public:
    enum class Style { bar, lines, json, none };
    /// "auto": a bar on a terminal, a line every 5 s elsewhere (both on stderr); "json": an object
    /// a second on stdout; "none". metrics: a Prometheus text file, empty: none.
    /// workers: all that were started.
    Report(const std::string& style, std::string metrics, size_t workers);
    ~Report();

    /// before: counts when the run began. workers: that still run; busy_seconds: of all.
    void update(const Counts& before, const Counts& now, int64_t workers, double busy_seconds,
                bool last);

  private:
    using Clock = std::chrono::steady_clock;
    struct State;
    void show(const State& state, bool last);
    void write_metrics(const State& state);

    Style style_;
    std::string metrics_;
    size_t workers_;
    bool told_ = false;  ///< that metrics cannot be written
    Clock::time_point start_ = Clock::now(), shown_{}, written_{};
    bool open_ = false;
};

}  // namespace fovea::apps::batch
