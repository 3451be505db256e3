#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/bench/merge.h"

/// Horizontal bars, a group a case; lengths are relative to the slowest bar of the group, because
/// cases lie orders of magnitude apart.
namespace fovea::apps::bench {
namespace {

constexpr int kLabel = 330, kBars = 420, kRight = 190, kBar = 13, kGap = 12, kTop = 34;

struct Bar {
    std::string name;
    double ms;
    bool own;
};

std::string escaped(const std::string& text) {
    std::string result;
    for (const char c : text) {
        if (c == '<')
            result += "&lt;";
        else if (c == '>')
            result += "&gt;";
        else if (c == '&')
            result += "&amp;";
        else if (c == '"')
            result += "&quot;";
        else
            result += c;
    }
    return result;
}

std::vector<Bar> bars_of(const Json& row) {
    std::vector<Bar> bars;
    if (row.contains("ms"))
        bars.push_back({fmt::format("fovea {}", row.value("path", "")), row.at("ms"), true});
    for (const auto& [path, entry] : row.at("peers").items())
        bars.push_back({path, entry.at("ms"), false});
    for (const auto& [path, entry] : row.at("dense_peers").items())
        bars.push_back({fmt::format("{}, dense", path), entry.at("ms"), false});
    if (row.at("dense_peers").empty() && row.contains("dense_ms"))
        bars.push_back({"fovea, dense", row.at("dense_ms"), false});
    return bars;
}

}  // namespace

std::string plot_of(const Json& merged) {
    std::string body;
    int y = kTop;
    for (const Json& row : merged.at("rows")) {
        const std::vector<Bar> bars = bars_of(row);
        if (bars.empty()) continue;
        double most = 0;
        for (const Bar& bar : bars) most = std::max(most, bar.ms);
        const int middle = y + kBar * static_cast<int>(bars.size()) / 2;
        body += fmt::format(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{} {}</text>\n"
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#667\">{}</text>\n",
            kLabel - 8, middle - 1, escaped(row.at("op")), escaped(row.at("shape")), kLabel - 8,
            middle + 11, escaped(row.at("pattern")));
        for (const Bar& bar : bars) {
            const double width = std::max(1.0, kBars * bar.ms / most);
            body += fmt::format(
                "<rect x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\"/>\n"
                "<text x=\"{:.1f}\" y=\"{}\">{:.4g} ms {}</text>\n",
                kLabel, y, width, kBar - 2, bar.own ? "#d9541e" : "#9aa7b5", kLabel + width + 5,
                y + kBar - 3, bar.ms, escaped(bar.name));
            y += kBar;
        }
        y += kGap;
    }
    const int width = kLabel + kBars + kRight;
    return fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
        "{1}\" font-family=\"sans-serif\" font-size=\"11\">\n"
        "<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n"
        "<text x=\"{2}\" y=\"18\">Time, shorter is better; each group has its own scale</text>\n"
        "{3}</svg>\n",
        width, y + 6, kLabel, body);
}

}  // namespace fovea::apps::bench
