#include "backend/patterns/registry.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include "backend/error.h"
#include "backend/patterns/dense.h"
#include "backend/patterns/disc.h"
#include "backend/patterns/frames.h"
#include "backend/patterns/identity.h"
#include "backend/patterns/radial.h"
#include "backend/patterns/sizes.h"

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

template <typename T>
T parse_number(std::string_view text, std::string_view spec) {
    T value{};
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    require(code == std::errc() && end == text.data() + text.size(),
            "[pattern] \"{}\": \"{}\" found where a number is expected", spec, text);
    return value;
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

/// The options behind the first parts of a spec: "name=value", the first one without a name where
/// there is a `usual` one. Names not asked for are errors.
class Options {
  public:
    Options(const Parts& parts, size_t first, const Grid& grid, std::string_view spec,
            std::string_view usual = {})
        : grid_(grid), spec_(spec) {
        for (size_t i = first; i < parts.size(); ++i) {
            const size_t equals = parts[i].find('=');
            const auto name = parts[i].substr(0, equals);
            if (i == first && equals == std::string_view::npos && !usual.empty()) {
                values_.emplace(usual, parts[i]);
                continue;
            }
            require(equals != std::string_view::npos,
                    "[pattern] \"{}\": \"{}\" found where an option name=value is expected", spec,
                    parts[i]);
            require(values_.emplace(name, parts[i].substr(equals + 1)).second,
                    "[pattern] \"{}\": option \"{}\" is there twice", spec, name);
        }
    }

    std::vector<uint32_t> axes(std::string_view name) {
        const auto text = take(name);
        return text ? per_axis(*text, grid_, spec_) : std::vector<uint32_t>();
    }
    template <typename T>
    T number(std::string_view name, T otherwise) {
        const auto text = take(name);
        return text ? parse_number<T>(*text, spec_) : otherwise;
    }
    /// To be called when all options have been asked for.
    void done() const {
        for (const auto& [name, value] : values_)
            require(std::find(asked_.begin(), asked_.end(), name) != asked_.end(),
                    "[pattern] \"{}\": option \"{}\" found, expected {}", spec_, name,
                    asked_.empty() ? "none" : fmt::format("{}", fmt::join(asked_, ", ")));
    }

  private:
    std::optional<std::string_view> take(std::string_view name) {
        asked_.push_back(name);
        const auto found = values_.find(name);
        if (found == values_.end()) return {};
        return found->second;
    }

    const Grid& grid_;
    std::string_view spec_;
    std::map<std::string_view, std::string_view> values_;
    std::vector<std::string_view> asked_;
};

void require_axes(const Grid& grid, size_t least, size_t most, std::string_view spec) {
    require(grid.shape.size() >= least && grid.shape.size() <= most,
            "[pattern] \"{}\": a grid of {} axes expected, found {}", spec,
            least == most ? fmt::format("{}", least) : fmt::format("{} to {}", least, most),
            grid.shape.empty() ? "none" : fmt::format("{}", fmt::join(grid.shape, "x")));
}

Pattern parse_dense(const Parts& parts, const Grid& grid, std::string_view spec) {
    Options(parts, 1, grid, spec).done();
    return dense();
}

Neighborhood read_neighborhood(const Parts& parts, const Grid& grid, std::string_view spec) {
    require_axes(grid, 1, 3, spec);
    require(parts.size() >= 2, "[pattern] \"{}\": a window is missing, as in neighborhood:7x7",
            spec);
    NeighborhoodOptions o;
    o.window = per_axis(parts[1], grid, spec);
    for (size_t i = 0; i < o.window.size(); ++i)
        if (o.window[i] == 0) o.window[i] = grid.shape[i];
    Options options(parts, 2, grid, spec, "stride");
    o.stride = options.axes("stride");
    o.dilation = options.axes("dilation");
    for (const uint32_t flag : options.axes("causal")) o.causal.push_back(flag != 0);
    options.done();
    return neighborhood(grid, o);
}

Pattern parse_window(const Parts& parts, const Grid& grid, std::string_view spec) {
    return read_neighborhood(parts, grid, spec);
}

Pattern parse_radial(const Parts& parts, const Grid& grid, std::string_view spec) {
    require_axes(grid, 1, 3, spec);
    Options options(parts, 1, grid, spec, "decay");
    const uint32_t video = checked_tokens("radial", grid.shape);
    const auto frames = options.number("frames", grid.shape.size() == 3 ? grid.shape[0] : 1u);
    require(frames >= 1 && video % frames == 0,
            "[pattern] \"{}\": frames={} found, the grid's {} tokens are no whole frames", spec,
            frames, video);
    const RadialOptions o{
        .frames = frames,
        .tokens_per_frame = video / frames,
        .tokens = checked_tokens("radial", grid.shape, options.number("text", 0u)),
        .block = options.number("block", 128u),
        .decay = options.number("decay", 1.0),
        .sink_first_frame = options.number("sink", 0u) != 0,
        .thinning = options.number("thinning", 128u)};
    options.done();
    return radial(o);
}

Pattern parse_disc(const Parts& parts, const Grid& grid, std::string_view spec) {
    require_axes(grid, 2, 2, spec);
    require(parts.size() >= 2, "[pattern] \"{}\": a radius is missing, as in disc:8", spec);
    Options options(parts, 2, grid, spec);
    const auto text = options.number("text", 0u);
    options.done();
    return disc(grid, parse_number<double>(parts[1], spec), text);
}

Pattern parse_identity(const Parts& parts, const Grid& grid, std::string_view spec) {
    require_axes(grid, 1, 3, spec);
    Options options(parts, 1, grid, spec);
    const IdentityOptions o{.tokens = checked_tokens("identity", grid.shape),
                            .text_before = options.number("before", 0u),
                            .text_after = options.number("text", 0u)};
    options.done();
    return identity(o);
}

Pattern parse_shared_frames(const Parts& parts, const Grid& grid, std::string_view spec) {
    require_axes(grid, 2, 3, spec);
    require(parts.size() == 2, "[pattern] \"{}\": frames are missing, as in frames:first+previous",
            spec);
    return frames(grid, parse_frames(std::string(parts[1]), '+'));
}

Pattern refuse_mask(const Parts& parts, const Grid&, std::string_view spec) {
    fail(
        "[pattern] \"{}\": a block mask does not fit into a spec; run `fovea attention` on a "
        "safetensors file that holds it, or call {}() in the library",
        spec, parts[0]);
}

struct Entry {
    std::string_view name, help;
    Pattern (*parse)(const Parts&, const Grid&, std::string_view spec);
};

constexpr Entry kEntries[] = {
    {"dense", "dense: every query sees every key", parse_dense},
    {"neighborhood",
     "neighborhood:WINDOW[:[stride=]S][:dilation=D][:causal=C]: a window around each query, "
     "numbers per axis as in 7x7; window 0 is the whole axis",
     parse_window},
    {"radial",
     "radial[:[decay=]1][:block=128][:sink=0][:thinning=128][:text=N][:frames=F]: bands that "
     "narrow with the distance of frames; N text and padding tokens follow the grid; sink=1: the "
     "first "
     "frame is seen by all; thinning: bands narrower than this are kept every so often only",
     parse_radial},
    {"disc",
     "disc:RADIUS[:text=N]: keys nearer than RADIUS on a 2-D grid; N text tokens follow, which see "
     "and are seen by all",
     parse_disc},
    {"identity",
     "identity[:text=N][:before=N]: image tokens see themselves and the text after or before them "
     "(perturbed attention of joint models)",
     parse_identity},
    {"frames",
     "frames:NAME+NAME…: of a clip's frames each query sees its own and first, middle, last, "
     "previous, next, or none else",
     parse_shared_frames},
    {"block_sparse", "block_sparse: any mask over blocks; takes a file, see fovea attention",
     refuse_mask},
    {"reordered",
     "reordered: a block mask over each head's own order of axes; takes a file, see fovea "
     "attention",
     refuse_mask},
};

}  // namespace

Pattern parse_pattern(std::string_view spec, const Grid& grid) {
    const Parts parts = split(spec, ':');
    for (const Entry& entry : kEntries)
        if (parts[0] == entry.name) return entry.parse(parts, grid, spec);
    fail("[pattern] \"{}\" found, expected one of: {}", spec, fmt::join(pattern_names(), ", "));
}

std::optional<Neighborhood> parse_neighborhood(std::string_view spec, const Grid& grid) {
    const Parts parts = split(spec, ':');
    if (parts[0] != "neighborhood") return {};
    return read_neighborhood(parts, grid, spec);
}

std::vector<std::string> pattern_names() {
    std::vector<std::string> names;
    for (const Entry& entry : kEntries) names.emplace_back(entry.name);
    return names;
}

std::vector<std::string> pattern_help() {
    std::vector<std::string> lines;
    for (const Entry& entry : kEntries) lines.emplace_back(entry.help);
    return lines;
}

}  // namespace fovea
