#include "backend/patterns/registry.h"

#include <algorithm>
#include <charconv>

#include "backend/error.h"
#include "backend/patterns/dense.h"
#include "backend/patterns/neighborhood.h"

namespace fovea {
namespace {

using Parts = std::vector<std::string_view>;

Parts split(std::string_view text, char separator) {
    Parts parts;
    for (size_t begin = 0;;) {
        const size_t end = text.find(separator, begin);
        parts.push_back(text.substr(begin, end - begin));
        if (end == std::string_view::npos) return parts;
        begin = end + 1;
    }
}

// "7x9" → {7, 9}; one number stands for all axes.
std::vector<uint32_t> per_axis(std::string_view text, const Grid& grid, std::string_view spec) {
    std::vector<uint32_t> values;
    for (const auto part : split(text, 'x')) {
        uint32_t value = 0;
        const auto [end, code] = std::from_chars(part.data(), part.data() + part.size(), value);
        require(code == std::errc() && end == part.data() + part.size(),
                "[pattern] \"{}\": \"{}\" found where numbers such as 7x7 are expected", spec,
                text);
        values.push_back(value);
    }
    if (values.size() == 1) values.resize(grid.shape.size(), values[0]);
    require(values.size() == grid.shape.size(),
            "[pattern] \"{}\": {} numbers for a grid of {} axes", spec, values.size(),
            grid.shape.size());
    return values;
}

Pattern parse_dense(const Parts& parts, const Grid&, std::string_view spec) {
    require(parts.size() == 1, "[pattern] \"{}\": dense takes no options", spec);
    return dense();
}

Pattern parse_neighborhood(const Parts& parts, const Grid& grid, std::string_view spec) {
    require(parts.size() >= 2, "[pattern] \"{}\": a window is missing, as in neighborhood:7x7",
            spec);
    NeighborhoodOptions options;
    options.window = per_axis(parts[1], grid, spec);
    for (size_t i = 0; i < options.window.size(); ++i)
        if (options.window[i] == 0) options.window[i] = grid.shape[i];
    for (size_t i = 2; i < parts.size(); ++i) {
        const size_t equals = parts[i].find('=');
        const auto name = parts[i].substr(0, equals);
        const auto value =
            equals == std::string_view::npos ? std::string_view() : parts[i].substr(equals + 1);
        if (name == "stride")
            options.stride = per_axis(value, grid, spec);
        else if (name == "dilation")
            options.dilation = per_axis(value, grid, spec);
        else if (name == "causal")
            for (const uint32_t flag : per_axis(value, grid, spec))
                options.causal.push_back(flag != 0);
        else
            fail("[pattern] \"{}\": option \"{}\" found, expected stride, dilation or causal", spec,
                 name);
    }
    return neighborhood(grid, options);
}

struct Entry {
    std::string_view name, help;
    Pattern (*parse)(const Parts&, const Grid&, std::string_view spec);
};

constexpr Entry kEntries[] = {
    {"dense", "dense: every query sees every key", parse_dense},
    {"neighborhood",
     "neighborhood:WINDOW[:stride=S][:dilation=D][:causal=C]: a window around each query, numbers "
     "per axis as in 7x7; "
     "window 0 is the whole axis",
     parse_neighborhood},
};

}  // namespace

Pattern parse_pattern(std::string_view spec, const Grid& grid) {
    const Parts parts = split(spec, ':');
    for (const Entry& entry : kEntries)
        if (parts[0] == entry.name) return entry.parse(parts, grid, spec);
    std::string names;
    for (const Entry& entry : kEntries)
        names += fmt::format("{}{}", names.empty() ? "" : ", ", entry.name);
    fail("[pattern] \"{}\" found, expected one of: {}", spec, names);
}

std::vector<std::string> pattern_help() {
    std::vector<std::string> lines;
    for (const Entry& entry : kEntries) lines.emplace_back(entry.help);
    return lines;
}

}  // namespace fovea
