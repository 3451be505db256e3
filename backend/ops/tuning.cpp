#include "backend/ops/tuning.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>

#include "backend/error.h"
#include "backend/log.h"
#include "backend/vk/cache_file.h"
#include "tuning_tables.h"

namespace fovea {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kFormat = 1;

/// What the process knows, by file: a pick stays the same while it runs, whoever writes the file.
struct Store {
    std::mutex mutex;
    std::map<fs::path, TunedTiles> files;
    std::map<std::string, TunedTiles> shipped;  ///< by name of device

    /// Where the last question was answered: ops ask at each call.
    struct Last {
        std::string folder, device, driver;
        const TunedTiles *file = nullptr, *shipped = nullptr;
    } last;
};

/// Of the thread that tunes; others run meanwhile with what is stored.
struct UnderTest {
    std::optional<std::pair<std::string, std::string>> trial;  ///< class and tile
    TuningRun* run = nullptr;
};
thread_local UnderTest under_test;

Store& store() {
    static Store shared;
    return shared;
}

TunedTiles read_file(const vk::DeviceInfo& device, const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (path.empty() || !file) return {};
    std::stringstream text;
    text << file.rdbuf();
    const auto tiles = parse_tuned_tiles(text.str(), device.name, device.driver);
    if (!tiles) log::debug("tuning: {} is damaged or of another device: ignored", path.string());
    if (tiles) log::debug("tuning: {} tiles of {}", tiles->size(), path.string());
    return tiles.value_or(TunedTiles{});
}

TunedTiles& tiles_of_file(const vk::DeviceInfo& device) {
    const fs::path path = tuning_file(device);
    auto& files = store().files;
    const auto found = files.find(path);
    return found != files.end() ? found->second
                                : files.emplace(path, read_file(device, path)).first->second;
}

const TunedTiles& shipped_tiles(const vk::DeviceInfo& device) {
    auto& shipped = store().shipped;
    if (const auto found = shipped.find(device.name); found != shipped.end()) return found->second;
    TunedTiles tiles;
    for (const char* table : kTuningTables)
        if (auto of_device = parse_tuned_tiles(table, device.name, {})) tiles.merge(*of_device);
    return shipped.emplace(device.name, std::move(tiles)).first->second;
}

const Store::Last& tables_of(const vk::DeviceInfo& device) {
    Store::Last& last = store().last;
    const std::string folder = vk::cache_folder().string();
    if (!last.file || folder != last.folder || device.name != last.device ||
        device.driver != last.driver)
        last = {folder, device.name, device.driver, &tiles_of_file(device), &shipped_tiles(device)};
    return last;
}

/// Beside what another process may have written since.
void save(const vk::DeviceInfo& device, const std::string& shape_class, const TunedTile& tile) {
    const std::lock_guard lock(store().mutex);
    tiles_of_file(device)[shape_class] = tile;
    const fs::path path = tuning_file(device);
    if (path.empty()) return;
    TunedTiles tiles = read_file(device, path);
    tiles[shape_class] = tile;
    const std::string text = to_json(tiles, device.name, device.driver);
    if (!vk::write_cache_file(path, {std::as_bytes(std::span(text))}))
        log::warn("{} could not be written: tiles are tuned for this run alone", path.string());
}

class Trial {
  public:
    Trial(const std::string& shape_class, const std::string& tile) {
        under_test.trial = {shape_class, tile};
    }
    ~Trial() { under_test.trial.reset(); }
    Trial(const Trial&) = delete;
    Trial& operator=(const Trial&) = delete;
};

struct Timed {
    std::string tile;
    std::vector<double> ms = {};

    double least() const { return *std::min_element(ms.begin(), ms.end()); }
    double median() const {
        std::vector<double> sorted = ms;
        std::sort(sorted.begin(), sorted.end());
        return sorted[sorted.size() / 2];
    }
};

double run_once(vk::Stream& stream, std::string_view op,
                const std::function<void(vk::Stream&)>& run) {
    const size_t seen = stream.profile_events().size();
    run(stream);
    stream.wait();
    const auto& events = stream.profile_events();
    double begin = 0, end = 0;
    for (size_t i = seen; i < events.size(); ++i) {
        if (events[i].name != op) continue;
        if (end == 0) begin = events[i].begin_us;
        end = events[i].begin_us + events[i].duration_us;
    }
    require(end > 0, "[tune] no dispatch of {} found in a run of it", op);
    return (end - begin) / 1e3;
}

/// The rule's tile first, then the others that run at all. Rounds over all of them, so that a clock
/// that changes meanwhile changes it for all; after the second round only those that can win stay.
std::vector<Timed> time_tiles(vk::Device& device, std::string_view op, const TileCandidates& c,
                              const std::function<void(vk::Stream&)>& run,
                              const TuningRun::Progress& progress) {
    using Clock = std::chrono::steady_clock;
    constexpr int kLeastRounds = 5, kMostRounds = 25;
    constexpr double kSeconds = 0.3, kHopeless = 1.3;
    vk::Stream stream(device);
    stream.profile(true);
    const int total = static_cast<int>(c.tiles.size()) + kLeastRounds;
    int done = 0;
    const auto step = [&] {
        if (progress) progress(done, total);
        done = std::min(done + 1, total);
    };
    std::vector<Timed> timed;
    for (const std::string& tile : c.tiles) {
        step();
        const Trial trial(c.shape_class, tile);
        try {
            run_once(stream, op, run);  // makes the pipeline
            timed.push_back({tile});
        } catch (const Error& error) {
            if (timed.empty()) throw;  // the rule's own
            log::debug("tuning: {} not with tile {}: {}", c.shape_class, tile, error.what());
        }
    }
    const auto begin = Clock::now();
    for (int round = 0; round < kMostRounds; ++round) {
        if (round >= kLeastRounds &&
            std::chrono::duration<double>(Clock::now() - begin).count() > kSeconds)
            break;
        if (round < kLeastRounds) step();
        double best = timed.front().ms.empty() ? 0 : timed.front().least();
        for (const Timed& t : timed)
            if (!t.ms.empty()) best = std::min(best, t.least());
        if (round == 2)
            timed.erase(
                std::remove_if(timed.begin() + 1, timed.end(),
                               [&](const Timed& t) { return t.least() > kHopeless * best; }),
                timed.end());
        for (Timed& t : timed) {
            const Trial trial(c.shape_class, t.tile);
            t.ms.push_back(run_once(stream, op, run));
        }
    }
    if (progress) progress(total, total);
    return timed;
}

}  // namespace

TuningMode tuning_mode() {
    const char* text = std::getenv("FOVEA_TUNE");
    const std::string_view word = text ? text : "";
    if (word.empty() || word == "stored") return TuningMode::stored;
    if (word == "off") return TuningMode::off;
    if (word == "on") return TuningMode::on;
    fail("[tune] FOVEA_TUNE is off, stored or on, found \"{}\"", word);
}

std::optional<TunedTiles> parse_tuned_tiles(const std::string& text, const std::string& device,
                                            const std::string& driver) {
    const Json json = Json::parse(text, nullptr, false);
    const auto is = [&](const char* key, const Json& value) {
        return json.contains(key) && json[key] == value;
    };
    if (!json.is_object() || !is("format", kFormat) || !is("device", device) ||
        !(driver.empty() || is("driver", driver)) || !json.contains("tiles") ||
        !json["tiles"].is_object())
        return std::nullopt;
    TunedTiles tiles;
    for (const auto& item : json["tiles"].items()) {
        const Json& entry = item.value();
        const auto has = [&](const char* key, bool (Json::*is_type)() const noexcept) {
            return entry.is_object() && entry.contains(key) && (entry[key].*is_type)();
        };
        if (!has("tile", &Json::is_string) || !has("ms", &Json::is_number) ||
            !has("rule_ms", &Json::is_number))
            return std::nullopt;
        tiles[item.key()] = {entry["tile"], entry["ms"], entry["rule_ms"]};
    }
    return tiles;
}

std::string to_json(const TunedTiles& tiles, const std::string& device, const std::string& driver) {
    Json entries = Json::object();
    for (const auto& [shape_class, t] : tiles)
        entries[shape_class] = {{"tile", t.tile}, {"ms", t.ms}, {"rule_ms", t.rule_ms}};
    const Json json{
        {"format", kFormat}, {"device", device}, {"driver", driver}, {"tiles", entries}};
    return fmt::format("{}\n", json.dump(1, ' ', false, Json::error_handler_t::replace));
}

fs::path tuning_file(const vk::DeviceInfo& device) {
    const fs::path folder = vk::cache_folder();
    if (folder.empty()) return {};
    std::string name = fmt::format("tiles-{}-{}", device.name, device.driver);
    for (char& c : name) {
        const bool plain =
            (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '.';
        if (!plain) c = '-';
    }
    return folder / fmt::format("{:.200}.json", name);
}

std::optional<std::string> tuned_tile(const vk::DeviceInfo& device,
                                      const std::function<std::string()>& shape_class) {
    if (const auto& trial = under_test.trial)
        return trial->first == shape_class() ? std::optional(trial->second) : std::nullopt;
    if (tuning_mode() == TuningMode::off) return std::nullopt;
    const std::lock_guard lock(store().mutex);
    const Store::Last& tables = tables_of(device);
    if (tables.file->empty() && tables.shipped->empty()) return std::nullopt;
    const std::string name = shape_class();
    for (const TunedTiles* tiles : {tables.file, tables.shipped})
        if (const auto found = tiles->find(name); found != tiles->end()) return found->second.tile;
    return std::nullopt;
}

uint64_t size_class(uint64_t x) {
    return std::bit_floor(x);
}

void tune_on_first_use(vk::Device& device, std::string_view op,
                       const std::function<TileCandidates()>& candidates,
                       const std::function<void(vk::Stream&)>& run) {
    TuningRun* const by_hand = under_test.run;
    if (under_test.trial || (!by_hand && tuning_mode() != TuningMode::on)) return;
    if (!by_hand && device.info().limits.timestamp_period == 0) return;
    const TileCandidates c = candidates();
    if (c.tiles.empty()) return;
    if (by_hand ? by_hand->knows(c.shape_class)
                : tuned_tile(device.info(), [&] { return c.shape_class; }).has_value())
        return;
    const std::vector<Timed> timed =
        time_tiles(device, op, c, run, by_hand ? by_hand->progress_ : nullptr);
    // The rule stays unless another one is faster beyond doubt: picks do not change with noise.
    constexpr double kDoubt = 0.99;
    const Timed* best = &timed.front();
    for (const Timed& t : timed)
        if (t.median() < kDoubt * timed.front().median() && t.median() < best->median()) best = &t;
    const TunedTile tile{best->tile, best->median(), timed.front().median()};
    log::debug("tuning: {}: tile {}, {:.4f} ms, by rule {} {:.4f} ms", c.shape_class, tile.tile,
               tile.ms, timed.front().tile, tile.rule_ms);
    save(device.info(), c.shape_class, tile);
    if (by_hand)
        by_hand->results_.push_back({c.shape_class, timed.front().tile, tile, c.tiles.size()});
}

TuningRun::TuningRun(Progress progress) : progress_(std::move(progress)) {
    require(!under_test.run, "[tune] a TuningRun is there already, expected one at a time");
    under_test.run = this;
}

TuningRun::~TuningRun() {
    under_test.run = nullptr;
}

bool TuningRun::knows(const std::string& shape_class) const {
    return std::any_of(results_.begin(), results_.end(),
                       [&](const TuningResult& r) { return r.shape_class == shape_class; });
}

}  // namespace fovea
