#include "backend/vk/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "backend/error.h"

namespace fovea::vk {

std::string profile_table(std::span<const ProfileEvent> events) {
    struct Row {
        std::string name;
        uint64_t calls = 0;
        double us = 0;
    };
    std::map<std::string, Row> by_name;
    double total = 0;
    for (const auto& event : events) {
        Row& row = by_name[event.name];
        row.name = event.name;
        ++row.calls;
        row.us += event.duration_us;
        total += event.duration_us;
    }
    std::vector<Row> rows;
    for (auto& [name, row] : by_name) rows.push_back(std::move(row));
    std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.us > b.us; });
    std::string text = fmt::format("{:<28} {:>8} {:>12} {:>12} {:>7}\n", "op", "calls", "total ms",
                                   "mean us", "share");
    for (const auto& row : rows)
        text += fmt::format("{:<28} {:>8} {:>12.3f} {:>12.1f} {:>6.1f}%\n", row.name, row.calls,
                            row.us * 1e-3, row.us / static_cast<double>(row.calls),
                            total > 0 ? 100 * row.us / total : 0);
    return text + fmt::format("{:<28} {:>8} {:>12.3f}\n", "all", events.size(), total * 1e-3);
}

void write_chrome_trace(const std::filesystem::path& path, std::span<const ProfileEvent> events) {
    auto list = nlohmann::json::array();
    for (const auto& event : events)
        list.push_back({{"name", event.name},
                        {"ph", "X"},
                        {"pid", 0},
                        {"tid", 0},
                        {"ts", event.begin_us},
                        {"dur", event.duration_us}});
    const std::filesystem::path beside = path.string() + ".part";
    {
        std::ofstream file(beside);
        file << nlohmann::json{{"traceEvents", list}, {"displayTimeUnit", "ms"}}.dump();
        require(file.good(), "[profile] cannot write {}", beside.string());
    }
    std::filesystem::rename(beside, path);
}

}  // namespace fovea::vk
