#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/vk/stream.h"

/// Tiles by timing. Every tile that fits a device gives a right result; which is fastest is
/// measured, for a device, a driver, an op and a class of shapes, and kept: in a file of the user's
/// cache folder, which comes first, and in assets/tuning, which the library carries. Where neither
/// knows the class, the op's own rule decides.
namespace fovea {

/// FOVEA_TUNE: off takes the rules alone; stored, the default, takes what was measured before and
/// never measures; on also measures at the first use of a class. Throws Error for another word.
enum class TuningMode { off, stored, on };
TuningMode tuning_mode();

/// Median milliseconds of a tile and of the tile that the rule takes for the same problem.
struct TunedTile {
    std::string tile;
    double ms = 0, rule_ms = 0;
};

/// By class of shapes, which begins with the op.
using TunedTiles = std::map<std::string, TunedTile>;

/// The text of a file; empty `driver`: of any. nullopt where it is damaged or of another device.
std::optional<TunedTiles> parse_tuned_tiles(const std::string& text, const std::string& device,
                                            const std::string& driver);
std::string to_json(const TunedTiles& tiles, const std::string& device, const std::string& driver);

/// The user's file for a device and its driver; empty without a cache folder.
std::filesystem::path tuning_file(const vk::DeviceInfo& device);

/// The tile under test, else what is stored and FOVEA_TUNE lets through. Files are read once; the
/// class is asked for only where something is stored.
std::optional<std::string> tuned_tile(const vk::DeviceInfo& device,
                                      const std::function<std::string()>& shape_class);

/// 2^floor(log2 x): what a class says of a size that varies.
uint64_t size_class(uint64_t x);

/// What an op could run for a problem. The rule's tile comes first; none: nothing to choose.
struct TileCandidates {
    std::string shape_class;
    std::vector<std::string> tiles;
};

/// For ops, before they ask for their tile: times the candidates and stores the fastest, if
/// FOVEA_TUNE is on and the class unknown, or a TuningRun is there. `run` records the op once, its
/// dispatches labelled `op`, into a result of its own.
void tune_on_first_use(vk::Device& device, std::string_view op,
                       const std::function<TileCandidates()>& candidates,
                       const std::function<void(vk::Stream&)>& run);

struct TuningResult {
    std::string shape_class, rule;
    TunedTile best;
    size_t candidates;
};

/// While it lives, ops are timed at their first use, each class once, whatever is stored and
/// whatever FOVEA_TUNE says. One at a time, for its thread.
class TuningRun {
  public:
    /// Called before each step of a class; what it throws ends the class without a result.
    using Progress = std::function<void(int done, int total)>;
    explicit TuningRun(Progress progress = {});
    ~TuningRun();
    TuningRun(const TuningRun&) = delete;
    TuningRun& operator=(const TuningRun&) = delete;

    const std::vector<TuningResult>& results() const { return results_; }
    bool knows(const std::string& shape_class) const;

  private:
    friend void tune_on_first_use(vk::Device&, std::string_view,
                                  const std::function<TileCandidates()>&,
                                  const std::function<void(vk::Stream&)>&);
    Progress progress_;
    std::vector<TuningResult> results_;
};

}  // namespace fovea
